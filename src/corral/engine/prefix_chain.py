"""Names of full KV blocks: a SHA-256 chain, so that equal names mean equal tokens all the way back to position 0."""

from __future__ import annotations

import hashlib
from array import array

from corral.config import BLOCK_SIZE


def root_hash(adapter: str, salt: str) -> bytes:
    """The parent of a sequence's first block: chains of another adapter or tenant salt never meet this one."""
    adapter_bytes = adapter.encode("utf-8", "surrogatepass")
    salt_bytes = salt.encode("utf-8", "surrogatepass")
    return hashlib.sha256(len(adapter_bytes).to_bytes(8, "little") + adapter_bytes + salt_bytes).digest()


class PrefixChain:
    """Hashes of the full blocks of one sequence, made when first asked for and kept.

    Args:
        root: parent of block 0, of `root_hash`.
        token_ids: the sequence's growing tokens, array("i"); known tokens never change.
    """

    __slots__ = ("_hashes", "_root", "_token_ids")

    def __init__(self, root: bytes, token_ids: array[int]) -> None:
        self._root = root
        self._token_ids = token_ids
        self._hashes: list[bytes] = []

    def hash_at(self, index: int) -> bytes:
        """Hash of block `index`; its tokens are all known."""
        while len(self._hashes) <= index:
            at = len(self._hashes)
            self._hashes.append(hashlib.sha256(self.parent_at(at) + self.tokens_at(at)).digest())
        return self._hashes[index]

    def parent_at(self, index: int) -> bytes:
        return self.hash_at(index - 1) if index else self._root

    def tokens_at(self, index: int) -> bytes:
        """The tokens of block `index`, 4 bytes each."""
        return self._token_ids[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE].tobytes()

    def share_with(self, other: PrefixChain, num_blocks: int) -> None:
        """Hand the first hashes to a chain over the same tokens, so that it need not make them again."""
        if not other._hashes:
            other._hashes = self._hashes[:num_blocks]
