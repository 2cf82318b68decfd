from __future__ import annotations

from array import array
from collections.abc import Iterable

import pytest

from corral.config import BLOCK_SIZE
from corral.engine.block_pool import BlockPool, IntegrityError
from corral.engine.prefix_chain import PrefixChain, root_hash


def make_chain(num_blocks: int, *, first: int = 0, adapter: str = "", salt: str = "") -> PrefixChain:
    tokens = array("i", range(first, first + num_blocks * BLOCK_SIZE))
    return PrefixChain(root_hash(adapter, salt), tokens)


def table(block_ids: Iterable[int]) -> array[int]:
    return array("i", block_ids)


def fill(pool: BlockPool, chain: PrefixChain, num_blocks: int) -> array[int]:
    """Take blocks and name them, as a sequence does that has computed `num_blocks` full ones."""
    taken = table(pool.allocate(num_blocks))
    return table(pool.register(block_id, chain, index) for index, block_id in enumerate(taken))


def test_a_past_prefix_is_found_and_held_again() -> None:
    pool = BlockPool(8)
    held = fill(pool, make_chain(3), 3)
    pool.free(held)
    assert pool.num_free == 8
    found = pool.match(make_chain(3), 3)
    assert found == list(held)
    pool.share(found)
    assert pool.num_free == 5
    pool.check_integrity([held])


def test_a_live_prefix_is_shared() -> None:
    pool = BlockPool(8)
    held = fill(pool, make_chain(2), 2)
    pool.share(pool.match(make_chain(2), 2))
    assert pool.num_free == 6
    pool.check_integrity([held, held])
    pool.free(held)
    pool.free(held)
    assert pool.num_free == 8


def test_a_match_is_no_longer_than_asked_for() -> None:
    pool = BlockPool(8)
    fill(pool, make_chain(3), 3)
    assert len(pool.match(make_chain(3), 2)) == 2


@pytest.mark.parametrize(
    "chain",
    [make_chain(2, salt="s"), make_chain(2, adapter="a"), make_chain(2, first=1)],
    ids=["salt", "adapter", "tokens"],
)
def test_another_salt_adapter_or_token_meets_nothing(chain: PrefixChain) -> None:
    pool = BlockPool(8)
    fill(pool, make_chain(2), 2)
    assert pool.match(chain, 2) == []


def test_adapter_and_salt_do_not_run_into_one_another() -> None:
    assert root_hash("ab", "c") != root_hash("a", "bc")


def test_a_block_is_found_only_behind_its_own_parent() -> None:
    pool = BlockPool(8)
    fill(pool, make_chain(2), 2)
    second_block_first = make_chain(1, first=BLOCK_SIZE)
    assert pool.match(second_block_first, 1) == []


def test_a_hit_with_other_tokens_is_a_miss() -> None:
    pool = BlockPool(8)
    held = fill(pool, make_chain(1), 1)
    pool.blocks[held[0]].tokens = b"a collision of SHA-256"
    assert pool.match(make_chain(1), 1) == []


def test_two_blocks_of_the_same_tokens_become_one() -> None:
    pool = BlockPool(8)
    first = fill(pool, make_chain(2), 2)
    second = fill(pool, make_chain(2), 2)
    assert first == second
    assert pool.num_free == 6
    pool.check_integrity([first, second])


def test_the_least_recently_freed_prefix_goes_first_and_its_deepest_block_before_the_others() -> None:
    pool = BlockPool(6)
    old, new = make_chain(3), make_chain(3, first=1000)
    old_held, new_held = fill(pool, old, 3), fill(pool, new, 3)
    pool.free(old_held)
    pool.free(new_held)
    pool.allocate(1)
    assert len(pool.match(old, 3)) == 2
    pool.allocate(2)
    assert pool.match(old, 3) == []
    assert len(pool.match(new, 3)) == 3
    assert pool.num_evictions == 3


def test_a_hit_makes_a_prefix_recent() -> None:
    pool = BlockPool(4)
    old, new = make_chain(2), make_chain(2, first=1000)
    old_held, new_held = fill(pool, old, 2), fill(pool, new, 2)
    pool.free(old_held)
    pool.free(new_held)
    pool.share(old_held)
    pool.free(old_held)
    pool.allocate(2)
    assert len(pool.match(old, 2)) == 2
    assert pool.match(new, 2) == []


def test_warm_memory_is_taken_before_fresh_and_fresh_before_cached() -> None:
    pool = BlockPool(4)
    cached = fill(pool, make_chain(1), 1)
    warm = table(pool.allocate(1))
    pool.free(cached)
    pool.free(warm)
    assert pool.allocate(1) == list(warm)
    fresh = pool.allocate(2)
    assert not set(fresh) & {*warm, *cached}
    assert pool.num_evictions == 0
    assert pool.allocate(1) == list(cached)


def test_without_caching_nothing_is_found() -> None:
    pool = BlockPool(4, enable_prefix_caching=False)
    fill(pool, make_chain(2), 2)
    assert pool.match(make_chain(2), 2) == []
    assert pool.num_cached == 0


def test_a_block_with_a_name_or_two_holders_is_not_writable() -> None:
    pool = BlockPool(4)
    (named,) = fill(pool, make_chain(1), 1)
    shared, own = pool.allocate(2)
    pool.share([shared])
    assert not pool.is_writable(named)
    assert not pool.is_writable(shared)
    assert pool.is_writable(own)


def test_copy_on_write_moves_one_hold() -> None:
    pool = BlockPool(4)
    (source,) = pool.allocate(1)
    pool.share([source])
    copy = pool.copy_on_write(source)
    assert pool.take_copies() == [(source, copy)]
    assert pool.take_copies() == []
    pool.check_integrity([table([source]), table([copy])])


def test_the_source_of_a_copy_is_not_reused_before_the_copy() -> None:
    pool = BlockPool(2)
    (source,) = fill(pool, make_chain(1), 1)
    pool.copy_on_write(source)
    assert pool.num_free == 0
    pool.take_copies()
    assert pool.num_free == 1
    assert pool.match(make_chain(1), 1) == [source]


def test_a_copy_of_a_copy_still_due_comes_from_the_first_source() -> None:
    pool = BlockPool(4)
    (source,) = pool.allocate(1)
    pool.share([source])
    first = pool.copy_on_write(source)
    pool.share([first])
    second = pool.copy_on_write(first)
    assert pool.take_copies() == [(source, first), (source, second)]


def test_what_is_forgotten_is_not_found_and_not_kept() -> None:
    pool = BlockPool(4)
    held = fill(pool, make_chain(2), 2)
    pool.forget(held)
    assert pool.match(make_chain(2), 2) == []
    pool.check_integrity([held])


def test_only_touched_memory_is_given_back() -> None:
    pool = BlockPool(8)
    cached = fill(pool, make_chain(2), 2)
    scratch = table(pool.allocate(2))
    pool.free(cached)
    pool.free(scratch)
    assert sorted(pool.take_unused()) == sorted(scratch)
    assert pool.take_unused() == []
    assert len(pool.match(make_chain(2), 2)) == 2
    assert sorted(pool.take_all_free()) == sorted(cached)
    assert pool.match(make_chain(2), 2) == []
    pool.check_integrity([])


def test_memory_of_held_blocks_is_kept() -> None:
    pool = BlockPool(4)
    held = fill(pool, make_chain(2), 2)
    assert pool.take_all_free() == []
    assert len(pool.match(make_chain(2), 2)) == 2
    pool.check_integrity([held])


def test_integrity_notices_a_leak() -> None:
    pool = BlockPool(4)
    pool.allocate(1)
    with pytest.raises(IntegrityError, match="has ref count 1 and 0 holders"):
        pool.check_integrity([])
    with pytest.raises(IntegrityError, match="1 of 4 blocks leaked"):
        pool.check_all_free()


def test_integrity_notices_a_lost_name() -> None:
    pool = BlockPool(4)
    held = fill(pool, make_chain(1), 1)
    pool.blocks[held[0]].hash = b"another"
    with pytest.raises(IntegrityError, match="under which the cache holds another block"):
        pool.check_integrity([held])


def test_integrity_notices_a_copy_never_made() -> None:
    pool = BlockPool(4)
    (source,) = pool.allocate(1)
    pool.share([source])
    copy = pool.copy_on_write(source)
    with pytest.raises(IntegrityError, match="never taken"):
        pool.check_integrity([table([source]), table([copy])])


def test_freeing_twice_is_noticed() -> None:
    pool = BlockPool(4)
    held = table(pool.allocate(1))
    pool.free(held)
    with pytest.raises(IntegrityError, match="freed with ref count 0"):
        pool.free(held)


def test_taking_more_than_there_is_is_noticed() -> None:
    with pytest.raises(IntegrityError, match="a pool with 4 free"):
        BlockPool(4).allocate(5)
