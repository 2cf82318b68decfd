"""What one step computes: some tokens of some sequences."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.engine.sequence import Sequence

_NONE = range(0)


@dataclass(slots=True)
class StepRoom:
    """What is left of a step for prompts: tokens, and rows of logits."""

    tokens: int
    logits: int

    def most_tokens(self, sequence: Sequence) -> int:
        """Tokens of a chunk; they are bounded by the logits if those are kept."""
        is_scored = sequence.group.prompt_logprobs is not None
        return min(sequence.num_new_tokens, self.tokens, max(0, self.logits) if is_scored else self.tokens)

    def take(self, sequence: Sequence) -> int:
        num_tokens = self.most_tokens(sequence)
        self.tokens -= num_tokens
        self.logits -= num_tokens if sequence.group.prompt_logprobs is not None else 1
        return num_tokens


@dataclass(slots=True)
class ScheduledRow:
    """Tokens [start, start + num_tokens) of a sequence. `is_last`: they are its last known ones, so one is drawn.

    Of `scored` positions in the prompt the logits tell how likely the next prompt token was. The step's logits are
    those of the scored positions of each row, then that of its last token if one is drawn, row by row.
    """

    sequence: Sequence
    start: int
    num_tokens: int
    is_last: bool
    scored: range = _NONE


@dataclass(slots=True)
class ScheduledBatch:
    """One step's work. `copies`, (source, destination) block ids, are due before the forward."""

    rows: list[ScheduledRow] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    num_prefill_tokens: int = 0
    num_decode_rows: int = 0

    def append(self, sequence: Sequence, num_tokens: int) -> None:
        is_last = num_tokens == sequence.num_new_tokens
        start = sequence.num_computed_tokens
        self.rows.append(ScheduledRow(sequence, start, num_tokens, is_last, _scored(sequence, start + num_tokens)))
        if num_tokens == 1 and is_last:
            self.num_decode_rows += 1
        else:
            self.num_prefill_tokens += num_tokens


def _scored(sequence: Sequence, end: int) -> range:
    """Positions below `end` in the prompt whose logits are still wanted. A sequence computed anew skips those told."""
    told = sequence.group.prompt_logprobs
    if told is None:
        return _NONE
    return range(len(told), min(end, sequence.group.num_prompt_tokens - 1))
