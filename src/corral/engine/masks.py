"""Which tokens each row of a step may draw, worked out on a thread of its own while the forward pass runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence as SequenceOf
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from corral.engine.constraint import Mask
from corral.engine.sequence import Sequence
from corral.errors import CorralError, InvalidRequest

_ALL = np.uint32(0xFFFFFFFF)

logger = logging.getLogger(__name__)


class Masks:
    """Computes the masks of one step at a time.

    Args:
        vocab_size: of the logits.
    """

    def __init__(self, vocab_size: int) -> None:
        self._num_words = (vocab_size + 31) // 32
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, sequences: SequenceOf[Sequence | None]) -> Future[Mask | None]:
        """Starts on the masks of a step's logit rows, [R, ceil(V / 32)]; None where no row is constrained.

        A sequence's own fault is its `failure`, and its row allows nothing.
        """
        constrained = [
            (row, sequence)
            for row, sequence in enumerate(sequences)
            if sequence is not None and sequence.group.is_constrained
        ]
        if not constrained:
            nothing: Future[Mask | None] = Future()
            nothing.set_result(None)
            return nothing
        if self._pool is None:  # most models never need it
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="corral-masks")
        return self._pool.submit(self._compute, len(sequences), constrained)

    def _compute(self, num_rows: int, constrained: list[tuple[int, Sequence]]) -> Mask:
        mask = np.full((num_rows, self._num_words), _ALL, dtype=np.uint32)
        for row, sequence in constrained:
            try:
                self._fill(mask[row], sequence)
            except CorralError as error:
                sequence.failure = error
            except Exception:
                request_id = sequence.group.request_id
                logger.exception("the constraint of request %s failed", request_id, extra={"request_id": request_id})
                sequence.failure = CorralError("the grammar failed while the answer was written; the log says why")
            if sequence.failure is not None:
                mask[row] = 0
        return mask

    def _fill(self, row: Mask, sequence: Sequence) -> None:
        constraint = sequence.constraint
        if constraint is not None:
            first = sequence.group.num_prompt_tokens
            for token_id in sequence.token_ids[first + sequence.num_accepted_tokens :]:
                constraint.accept(token_id)
                sequence.num_accepted_tokens += 1
            constraint.fill_mask(row)
        allowed_ids = sequence.group.params.allowed_token_ids
        if allowed_ids is not None:
            allowed = np.zeros_like(row)
            ids = np.array(allowed_ids, dtype=np.uint32)
            np.bitwise_or.at(allowed, ids // 32, np.uint32(1) << (ids % 32))
            row &= allowed
        if not row.any():
            raise InvalidRequest(
                "allowed_token_ids leaves no token that the grammar allows here", param="allowed_token_ids"
            )
