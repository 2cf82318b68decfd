"""From a scheduled batch to drawn tokens: the only caller of the native forward."""

from __future__ import annotations

import numpy as np

from corral._native import Decoder, KVCache, Model
from corral.config import EngineConfig
from corral.engine.batch import build_batch
from corral.engine.logprobs import LogprobQuery, look_up
from corral.engine.masks import Masks
from corral.engine.output import TokenLogprobs
from corral.engine.sampler import sample, sequences_of_logits
from corral.engine.scheduled_batch import ScheduledBatch


class ModelRunner:
    """A model with its KV cache and the scratch of one step.

    Args:
        model: a finished model.
        num_blocks: KV blocks; their memory is touched when first written.
        vocab_size: of the model's logits.
        config: `max_num_batched_tokens` and `max_num_seqs` bound every step and size the scratch; `kv_cache_dtype`.
    """

    def __init__(self, model: Model, num_blocks: int, config: EngineConfig, vocab_size: int) -> None:
        max_tokens = config.max_num_batched_tokens
        self.kv_cache = KVCache(model, num_blocks, config.kv_dtype)
        self._masks = Masks(vocab_size)
        self._decoder = Decoder(model, self.kv_cache, max_tokens, min(config.max_num_seqs, max_tokens))

    @property
    def num_blocks(self) -> int:
        return self.kv_cache.num_blocks

    def execute(self, scheduled: ScheduledBatch) -> list[int]:
        """Copy blocks, compute the batch, draw one token per row that ends its known tokens, in row order.

        A drawn id is -1 where the logits were not finite, or the sequence's `failure` says why not.
        """
        logit_rows = sequences_of_logits(scheduled.rows)
        masks = self._masks.begin(logit_rows)  # beside the forward pass
        if scheduled.copies:
            copies = np.array(scheduled.copies, dtype=np.int32).T
            self.kv_cache.copy_blocks(np.ascontiguousarray(copies[0]), np.ascontiguousarray(copies[1]))
        batch = build_batch(scheduled.rows)
        try:
            self._decoder.forward(
                batch.token_ids,
                batch.seq_offsets,
                batch.start_positions,
                batch.block_tables,
                batch.logit_rows,
                batch.adapter_ids,
                [adapter.weights for adapter in batch.adapters],
            )
        finally:
            mask = masks.result()
        return sample(self._decoder, logit_rows, mask)

    def logprobs(self, queries: list[LogprobQuery]) -> dict[int, TokenLogprobs]:
        """By row of the logits of the step just executed."""
        return look_up(self._decoder, queries)

    def release_blocks(self, block_ids: list[int]) -> None:
        """Give the memory of these blocks back to the system; their content is gone."""
        self.kv_cache.release_blocks(np.array(sorted(block_ids), dtype=np.int32))

    def resident_kv_bytes(self) -> int:
        """KV memory that is really in use now."""
        return self.kv_cache.resident_bytes()
