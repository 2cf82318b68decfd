"""KV blocks: who holds them, which of them still hold known tokens, and which goes next."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

from corral.engine.linked_list import LinkedList, Node
from corral.engine.prefix_chain import PrefixChain


class IntegrityError(RuntimeError):
    """The pool's books do not balance: a fault of the engine, never of a request."""


class Block(Node):
    """One block of BLOCK_SIZE token slots. A block with a hash is never written again."""

    __slots__ = ("block_id", "hash", "is_resident", "parent_hash", "ref_count", "tokens")

    def __init__(self, block_id: int) -> None:
        super().__init__()
        self.block_id = block_id
        self.ref_count = 0
        self.hash: bytes | None = None
        self.parent_hash = b""
        self.tokens = b""
        self.is_resident = False  # was handed out since its memory was last given back


class BlockPool:
    """Blocks 0 .. num_blocks - 1.

    A free block is in one list: [unhashed resident | unhashed untouched | hashed, least recently freed first].
    Blocks are taken at the head: warm memory first, then fresh memory, then the oldest cached prefix.
    """

    def __init__(self, num_blocks: int, *, enable_prefix_caching: bool = True) -> None:
        self.blocks = [Block(i) for i in range(num_blocks)]
        self.num_evictions = 0
        self._caching = enable_prefix_caching
        self._free: LinkedList[Block] = LinkedList()
        for block in self.blocks:
            self._free.push_tail(block)
        self._by_hash: dict[bytes, Block] = {}
        self._copy_sources: dict[int, int] = {}  # destination -> source of the copies due
        self._deferred: list[Block] = []

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    @property
    def num_free(self) -> int:
        """Blocks that can be taken now, cached prefixes included."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Blocks that can be found by their hash, live or past."""
        return len(self._by_hash)

    # ---- taking and giving back -------------------------------------------------------------------------------

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks, ref count 1 each; the caller has compared `count` with `num_free`."""
        taken: list[int] = []
        for _ in range(count):
            block = self._free.pop_head()
            if block is None:
                raise IntegrityError(f"{count} blocks were taken of a pool with {len(taken)} free")
            if block.hash is not None:
                self.num_evictions += 1
                self._forget(block)
            block.ref_count = 1
            block.is_resident = True
            taken.append(block.block_id)
        return taken

    def share(self, block_ids: Iterable[int]) -> None:
        """One more holder for each block: a prefix hit on a live or past block, or a fork."""
        for block_id in block_ids:
            block = self.blocks[block_id]
            if block.ref_count == 0:
                self._free.remove(block)
            block.ref_count += 1

    def free(self, block_ids: array[int]) -> None:
        """One holder less for each block of a table, the last first: of a chain, the deepest block is evicted first."""
        for block_id in reversed(block_ids):
            self._drop(self.blocks[block_id])

    def num_free_among(self, block_ids: Iterable[int]) -> int:
        return sum(self.blocks[block_id].ref_count == 0 for block_id in block_ids)

    def _drop(self, block: Block) -> None:
        if block.ref_count <= 0:
            raise IntegrityError(f"block {block.block_id} was freed with ref count {block.ref_count}")
        block.ref_count -= 1
        if block.ref_count:
            return
        if block.block_id in self._copy_sources.values():
            self._deferred.append(block)  # its content is still to be copied
        else:
            self._put_back(block)

    def _put_back(self, block: Block) -> None:
        if block.hash is None:
            self._free.push_head(block)
        else:
            self._free.push_tail(block)

    # ---- copy-on-write ----------------------------------------------------------------------------------------

    def is_writable(self, block_id: int) -> bool:
        """One holder and no hash: whoever holds it may write into it."""
        block = self.blocks[block_id]
        return block.ref_count == 1 and block.hash is None

    def copy_on_write(self, block_id: int) -> int:
        """Swap the caller's hold on a block for one on a copy of its own; the copy is due before the next forward."""
        (copy_id,) = self.allocate(1)
        # A block that is itself a copy still due holds nothing yet: copy from where it will come from.
        self._copy_sources[copy_id] = self._copy_sources.get(block_id, block_id)
        self._drop(self.blocks[block_id])
        return copy_id

    def take_copies(self) -> list[tuple[int, int]]:
        """The (source, destination) copies due since the last call; no source is a destination: any order will do."""
        copies = [(source, destination) for destination, source in self._copy_sources.items()]
        self._copy_sources.clear()
        for block in self._deferred:
            self._put_back(block)
        self._deferred.clear()
        return copies

    # ---- prefix cache -----------------------------------------------------------------------------------------

    def match(self, chain: PrefixChain, max_blocks: int) -> list[int]:
        """Ids of the longest run of cached blocks from the chain's start. Takes no hold on them."""
        found: list[int] = []
        while self._by_hash and len(found) < max_blocks:
            at = len(found)
            block = self._by_hash.get(chain.hash_at(at))
            if block is None or block.tokens != chain.tokens_at(at) or block.parent_hash != chain.parent_at(at):
                break
            found.append(block.block_id)
        return found

    def register(self, block_id: int, chain: PrefixChain, index: int) -> int:
        """Name a block that now holds block `index` of the chain; returns the block to hold from now on.

        Where another block already holds the same tokens, the caller's hold moves there and its own block is free.
        """
        block = self.blocks[block_id]
        if not self._caching or block.hash is not None:
            return block_id
        name, parent, tokens = chain.hash_at(index), chain.parent_at(index), chain.tokens_at(index)
        known = self._by_hash.get(name)
        if known is None:
            block.hash, block.parent_hash, block.tokens = name, parent, tokens
            self._by_hash[name] = block
            return block_id
        if known.tokens != tokens or known.parent_hash != parent:
            return block_id
        self.share((known.block_id,))
        self._drop(block)
        return known.block_id

    def forget(self, block_ids: Iterable[int]) -> None:
        """Take held blocks out of the cache because their content is not to be trusted."""
        for block_id in block_ids:
            self._forget(self.blocks[block_id])

    def _forget(self, block: Block) -> None:
        if block.hash is not None:
            del self._by_hash[block.hash]
        block.hash = None
        block.parent_hash = block.tokens = b""

    # ---- memory -----------------------------------------------------------------------------------------------

    def take_unused(self) -> list[int]:
        """Free unhashed blocks whose memory was touched; the caller gives that memory back. O(blocks returned)."""
        unused = []
        for block in self._free:
            if block.hash is not None or not block.is_resident:
                break
            block.is_resident = False
            unused.append(block.block_id)
        return unused

    def take_all_free(self) -> list[int]:
        """As `take_unused`, but drops every cached prefix that nobody holds first. O(num_blocks)."""
        for block in list(self._free):
            if block.hash is not None:
                self._forget(block)
                self._free.remove(block)
                self._free.push_head(block)
        return self.take_unused()

    # ---- books ------------------------------------------------------------------------------------------------

    def check_integrity(self, tables: Iterable[array[int]]) -> None:
        """Compare the books with `tables`, the block tables of all who hold blocks. O(num_blocks + held blocks).

        Raises:
            IntegrityError: names the block and what is wrong with it.
        """
        held = Counter(block_id for table in tables for block_id in table)
        free = [block.block_id for block in self._free]
        free_set = set(free)
        if len(free) != len(free_set) or len(free) != len(self._free):
            raise IntegrityError(
                f"the free list has {len(free)} links, {len(free_set)} blocks and size {len(self._free)}"
            )
        if self._copy_sources or self._deferred:
            raise IntegrityError(
                f"{len(self._copy_sources)} copies and {len(self._deferred)} freed sources were never taken"
            )
        for block in self.blocks:
            self._check_block(block, held[block.block_id], block.block_id in free_set)
        if len(self._by_hash) != sum(block.hash is not None for block in self.blocks):
            raise IntegrityError(f"the cache has {len(self._by_hash)} names, more than blocks that bear one")
        ranks = [_free_rank(self.blocks[block_id]) for block_id in free]
        if ranks != sorted(ranks):
            raise IntegrityError("the free list is out of order: unhashed resident, unhashed untouched, hashed")

    def _check_block(self, block: Block, num_holders: int, is_free: bool) -> None:
        if block.ref_count != num_holders:
            raise IntegrityError(f"block {block.block_id} has ref count {block.ref_count} and {num_holders} holders")
        if is_free != (num_holders == 0):
            raise IntegrityError(f"block {block.block_id} has {num_holders} holders; in the free list: {is_free}")
        if block.hash is not None and self._by_hash.get(block.hash) is not block:
            raise IntegrityError(f"block {block.block_id} bears a name under which the cache holds another block")

    def check_all_free(self) -> None:
        """The O(1) check for an engine without work: nobody holds a block.

        Raises:
            IntegrityError: says how many blocks leaked.
        """
        if len(self._free) != self.num_blocks:
            raise IntegrityError(f"{self.num_blocks - len(self._free)} of {self.num_blocks} blocks leaked")


def _free_rank(block: Block) -> int:
    if block.hash is not None:
        return 2
    return 0 if block.is_resident else 1
