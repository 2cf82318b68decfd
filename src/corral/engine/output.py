"""What a step brought: the engine's answers, in ids only."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.errors import CorralError
from corral.request import FinishReason


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely a drawn token was, and the likeliest ones (it may be among them): natural logarithms."""

    token_id: int
    logprob: float
    top_ids: tuple[int, ...] = ()  # the likeliest first
    top_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """One step's gain of one sequence.

    Args:
        request_id: the request it belongs to.
        index: which of its n answers, in [0, n).
        new_token_ids: what was drawn, without the stop token.
        finish_reason: set in the sequence's last output, and only there.
        stop_token: the token id that ended it, when one did.
        num_cached_tokens: tokens of the request's prompt that came from cached blocks.
        num_prompt_tokens: tokens of the prompt.
        begun_at: when the first step began that computed anything of the request; seconds of the engine's clock.
        logprobs: one for each of new_token_ids where the request asks for them, else none.
        prompt_logprobs: once, with a first token: of all tokens of the prompt but the first, where they are asked for.
    """

    request_id: str
    index: int
    new_token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    stop_token: int | None = None
    num_cached_tokens: int = 0
    num_prompt_tokens: int = 0
    begun_at: float | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class StepOutput:
    """What one step brought to all requests."""

    outputs: list[SequenceOutput] = field(default_factory=list)
    failures: dict[str, CorralError] = field(default_factory=dict)  # request id -> why it was given up, whole
