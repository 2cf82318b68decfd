"""How much prompt one step may compute, so that running streams get their next token in time."""

from __future__ import annotations

from collections import deque
from statistics import median

FLOOR_TOKENS = 16  # a prompt always gets this much of a step, so that it cannot starve
_HEADROOM = 0.9  # aim below the promise: step times scatter
_MOST_PATIENCE = 3.0  # times max_step_ms that a step may take while many prompts wait
_WINDOW = 5  # a median over this many samples ignores two outliers and follows a change in three steps


class StepBudget:
    """Learns what prompt tokens and decode rows cost from measured steps and sizes the prompt part of the next one.

    It decides when tokens are computed, never which: results do not depend on the times it is told.

    Args:
        max_tokens: most tokens of a step, prompt and decode rows together.
        max_step_ms: while any sequence decodes, a step aims below this. With more than one prompt to compute it aims
            for more, by how many wait to how many stream: each step costs its decode rows and a reading of the weights,
            and who waits for a first token waits as much as who waits for the next.
    """

    def __init__(self, max_tokens: int, max_step_ms: float) -> None:
        self._max_tokens = max_tokens
        self._max_step_ms = max_step_ms
        self._decode_ms: dict[int, deque[float]] = {}  # by bit length of the number of rows
        self._prefill_ms: deque[float] = deque(maxlen=_WINDOW)  # per token, on top of the decode rows
        self._prefill_sizes: deque[int] = deque(maxlen=_WINDOW)

    def prefill_tokens(self, num_decode_rows: int, num_prompts: int = 1) -> int:
        """Most prompt tokens for a step that also decodes `num_decode_rows` sequences; at least 1.

        `num_prompts` sequences have prompt left to compute.
        """
        room = max(1, self._max_tokens - num_decode_rows)
        if num_decode_rows == 0:
            return room
        floor = min(FLOOR_TOKENS, room)
        if not self._prefill_ms:
            return floor
        patience = min(_MOST_PATIENCE, 1 + max(0, num_prompts - 1) / num_decode_rows)
        spare_ms = _HEADROOM * patience * self._max_step_ms - self.decode_ms(num_decode_rows)
        fitting = int(spare_ms / max(median(self._prefill_ms), 1e-6))
        # Per-token cost is only known near the sizes that were measured: grow at most twofold a step.
        return max(floor, min(room, fitting, 2 * max(self._prefill_sizes)))

    def decode_ms(self, num_rows: int) -> float:
        """Expected time of a step of decode rows alone; 0 until one was measured."""
        bucket = num_rows.bit_length()
        known = min(self._decode_ms, key=lambda b: abs(b - bucket), default=None)
        if known is None:
            return 0.0
        # More rows than were measured cost at most in proportion, fewer cost at most the same.
        return float(median(self._decode_ms[known])) * 2.0 ** max(0, bucket - known)

    def observe(self, num_prefill_tokens: int, num_decode_rows: int, elapsed_ms: float) -> None:
        """Learn from a step that took `elapsed_ms`."""
        if num_prefill_tokens == 0:
            bucket = num_decode_rows.bit_length()
            self._decode_ms.setdefault(bucket, deque(maxlen=_WINDOW)).append(elapsed_ms)
        elif num_prefill_tokens >= FLOOR_TOKENS:  # of a smaller chunk the difference is mostly noise
            self._prefill_ms.append(max(0.0, elapsed_ms - self.decode_ms(num_decode_rows)) / num_prefill_tokens)
            self._prefill_sizes.append(num_prefill_tokens)
