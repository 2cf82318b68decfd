"""A GGUF file in the native core, driven without the engine: token ids in, logits out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corral import _native
from corral.config import BLOCK_SIZE
from corral.model.adapter import open_adapter
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.packed_cache import PackedCache
from corral.model.weights import Progress, load_model

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Tokens of one sequence for one forward: at positions [start, start + len(token_ids)), KV in `blocks`."""

    token_ids: Sequence[int]
    blocks: Sequence[int]
    start: int = 0


class NativeRunner:
    """A loaded model with a KV cache and a decoder.

    Args:
        path: the GGUF file.
        num_threads: of the core.
        num_tokens: tokens that the KV cache holds.
        max_tokens: most tokens of one forward.
        cache: of packed weights; see load_model, as for progress.
        kv_dtype: "f16" or "int8".
        adapter: a LoRA adapter that all sequences have.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_threads: int = 2,
        num_tokens: int = 2048,
        max_tokens: int = 512,
        cache: PackedCache | None = None,
        progress: Progress | None = None,
        kv_dtype: str = "f16",
        adapter: Path | None = None,
    ) -> None:
        with open_gguf(path) as gguf:
            self.config = read_config(gguf)
            self.model = load_model(gguf, self.config, num_threads, progress, cache)
        self.adapter = None
        if adapter is not None:
            with open_adapter(adapter, self.config) as file:
                self.adapter = file.load()
        self.max_tokens = max_tokens
        self.num_blocks = -(-num_tokens // BLOCK_SIZE)
        self.kv_cache = _native.KVCache(self.model, self.num_blocks, kv_dtype)
        self.decoder = _native.Decoder(self.model, self.kv_cache, max_tokens, min(64, max_tokens))

    def forward(self, parts: Sequence[Part]) -> FloatArray:
        """One step over all parts; f32[all their tokens, vocab] in their order."""
        lengths = [len(part.token_ids) for part in parts]
        width = max(len(part.blocks) for part in parts)
        tables = np.zeros((len(parts), width), np.int32)
        for row, part in enumerate(parts):
            tables[row, : len(part.blocks)] = part.blocks
        self.decoder.forward(
            np.concatenate([np.asarray(part.token_ids, np.int32) for part in parts]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
            np.array([part.start for part in parts], np.int32),
            tables,
            np.arange(sum(lengths), dtype=np.int32),
            np.zeros(len(parts), np.int32) if self.adapter else None,
            [self.adapter.weights] if self.adapter else [],
        )
        return self.decoder.logits()

    def logits(
        self, token_ids: Sequence[int], chunk: int | None = None, blocks: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[tuple[int, FloatArray]]:
        """(first position, f32[rows, vocab]) of a sequence alone, `chunk` tokens at a time (default: as many as fit).

        `blocks` is its block table (default: the first ones); the tokens before `start` have their KV there already.
        """
        chunk = chunk or self.max_tokens
        if blocks is None:
            blocks = range(-(-len(token_ids) // BLOCK_SIZE))
        for first in range(start, len(token_ids), chunk):
            yield first, self.forward([Part(token_ids[first : first + chunk], blocks, first)])

    def all_logits(self, token_ids: Sequence[int], chunk: int | None = None) -> FloatArray:
        """f32[T, vocab] of a sequence alone."""
        return np.concatenate([logits for _, logits in self.logits(token_ids, chunk)])
