from __future__ import annotations

from array import array

from corral.config import BLOCK_SIZE
from corral.engine.prefix_chain import PrefixChain, root_hash

ROOT = root_hash("", "")


def test_a_name_depends_on_every_token_before_the_blocks_end_and_on_none_behind_it() -> None:
    tokens = array("i", range(3 * BLOCK_SIZE))
    other = tokens[:]
    other[BLOCK_SIZE] += 1
    ours, theirs = PrefixChain(ROOT, tokens), PrefixChain(ROOT, other)
    assert ours.hash_at(0) == theirs.hash_at(0)
    assert ours.hash_at(1) != theirs.hash_at(1)
    assert ours.hash_at(2) != theirs.hash_at(2)
    assert ours.tokens_at(2) == theirs.tokens_at(2)


def test_names_of_later_blocks_can_be_asked_for_as_tokens_come() -> None:
    tokens = array("i", range(BLOCK_SIZE))
    chain = PrefixChain(ROOT, tokens)
    first = chain.hash_at(0)
    tokens.extend(range(BLOCK_SIZE))
    assert chain.parent_at(0) == ROOT
    assert chain.parent_at(1) == first
    assert chain.hash_at(1) == PrefixChain(ROOT, tokens).hash_at(1) != first


def test_a_sibling_takes_over_the_names_of_the_prompt() -> None:
    leader = PrefixChain(ROOT, array("i", range(3 * BLOCK_SIZE)))
    leader.hash_at(2)
    sibling = PrefixChain(ROOT, array("i", [*range(2 * BLOCK_SIZE), *[9] * BLOCK_SIZE]))
    leader.share_with(sibling, 2)
    assert sibling.hash_at(1) == leader.hash_at(1)
    assert sibling.hash_at(2) != leader.hash_at(2)


def test_strange_salts_have_a_name_too() -> None:
    assert root_hash("", "\ud800") != root_hash("", "")
