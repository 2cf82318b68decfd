"""The native forward for embeddings: hidden states in place of logits, and K and V of its own for one step."""

from __future__ import annotations

import numpy as np

from corral._native import Decoder, KVCache, Model
from corral.engine.batch import Batch
from corral.engine.pooling import F32
from corral.model.plan import EmbeddingShape


class EmbeddingRunner:
    """A model with the scratch of one embedding step. What it generates lives in the blocks of ModelRunner, untouched.

    Args:
        model: a finished model.
        shape: the bounds of a step; the memory of its blocks, always f16, is touched when first written.
    """

    def __init__(self, model: Model, shape: EmbeddingShape) -> None:
        self._kv_cache = KVCache(model, shape.num_blocks, "f16")
        self._decoder = Decoder(model, self._kv_cache, shape.max_tokens, min(shape.max_texts, shape.max_tokens))

    def compute(self, batch: Batch) -> F32:
        """f32[rows, hidden]: the final hidden states of batch.logit_rows."""
        return self._decoder.embed(
            batch.token_ids, batch.seq_offsets, batch.start_positions, batch.block_tables, batch.logit_rows
        )

    def release_blocks(self, block_ids: list[int]) -> None:
        """Give the memory of these blocks back to the system."""
        self._kv_cache.release_blocks(np.array(block_ids, dtype=np.int32))
