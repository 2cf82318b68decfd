"""How the next token is chosen, as the user asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import (
    MAX_BAD_WORD_LENGTH,
    MAX_BAD_WORDS,
    MAX_LOGIT_BIAS,
    MAX_LOGPROBS,
    MAX_N,
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
)

MAX_TEMPERATURE = 100.0  # protocols may allow less
_MAX_SHOWN = 60  # characters of a value that an error repeats


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling settings of one request; names and meanings are those of OpenAI and vLLM.

    Args:
        n: answers to the same prompt.
        temperature: 0 is greedy; up to 100.
        top_k: keep the k likeliest tokens; 0 or -1 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches top_p.
        min_p: drop tokens less likely than min_p times the likeliest.
        repetition_penalty: divides (multiplies, if negative) the logits of tokens in prompt and answer.
        presence_penalty: subtracted once from the logits of tokens in the answer.
        frequency_penalty: subtracted for each occurrence in the answer.
        seed: makes sampling repeatable; None draws a fresh one.
        stop: strings that end the answer; they are not part of it.
        stop_token_ids: tokens that end the answer, besides the model's own.
        max_tokens: longest answer; None is whatever the context leaves.
        min_tokens: end-of-text tokens are not sampled before this many.
        logit_bias: token id -> value added to its logit.
        ignore_eos: the model's end-of-text tokens do not end the answer.
        logprobs: tell each token's log-probability, and those of this many of the likeliest tokens; None tells none.
        prompt_logprobs: as logprobs, of the prompt's tokens; None tells none.
        allowed_token_ids: no other tokens are drawn; None allows all.
        bad_words: texts that the answer does not contain, as far as their own tokens write them.
        include_stop_str: the stop string that ended the answer is part of it.
        skip_special_tokens: control tokens are not shown in the answer's text.
        penalty_window: the penalties look at this many of the last tokens only; 0 turns them off, None is no limit.

    Raises:
        InvalidRequest: names the field, the value given and what is allowed.
    """

    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int | None = None
    min_tokens: int = 0
    logit_bias: dict[int, float] = field(default_factory=dict)
    ignore_eos: bool = False
    logprobs: int | None = None
    penalty_window: int | None = None
    prompt_logprobs: int | None = None
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    include_stop_str: bool = False
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        _check_int("n", self.n, 1, MAX_N)
        _check_float("temperature", self.temperature, 0.0, MAX_TEMPERATURE)
        _check_int("top_k", self.top_k, -1, 1 << 20)
        _check_float("top_p", self.top_p, 0.0, 1.0, exclusive_low=True)
        _check_float("min_p", self.min_p, 0.0, 1.0)
        _check_float("repetition_penalty", self.repetition_penalty, 0.0, 10.0, exclusive_low=True)
        _check_float("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _check_float("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        if self.seed is not None:
            _check_int("seed", self.seed, -(1 << 63), (1 << 64) - 1)
        if self.logprobs is not None:
            _check_int("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.prompt_logprobs is not None:
            _check_int("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS)
        if self.penalty_window is not None:
            _check_int("penalty_window", self.penalty_window, 0, 1 << 31)
        if self.max_tokens is not None:
            _check_int("max_tokens", self.max_tokens, 1, 1 << 31)
        _check_int("min_tokens", self.min_tokens, 0, 1 << 31)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens is {self.min_tokens}; it may be at most max_tokens, {self.max_tokens}", param="min_tokens"
            )
        if len(self.stop) > MAX_STOP_STRINGS:
            raise LimitExceeded("stop", len(self.stop), MAX_STOP_STRINGS, "strings")
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise InvalidRequest("stop must hold non-empty strings", param="stop")
        if longest := max((len(s) for s in self.stop if len(s) > MAX_STOP_LENGTH), default=0):
            raise LimitExceeded("a string of stop", longest, MAX_STOP_LENGTH, "characters", param="stop")
        if len(self.stop_token_ids) > MAX_STOP_TOKEN_IDS:
            raise LimitExceeded("stop_token_ids", len(self.stop_token_ids), MAX_STOP_TOKEN_IDS)
        for token_id in self.stop_token_ids:
            _check_int("stop_token_ids", token_id, 0, 1 << 31)
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise InvalidRequest(
                "allowed_token_ids is empty; it needs one token id at least", param="allowed_token_ids"
            )
        for token_id in self.allowed_token_ids or ():
            _check_int("allowed_token_ids", token_id, 0, 1 << 31)
        if len(self.bad_words) > MAX_BAD_WORDS:
            raise LimitExceeded("bad_words", len(self.bad_words), MAX_BAD_WORDS, "texts")
        if any(not isinstance(word, str) or not word for word in self.bad_words):
            raise InvalidRequest("bad_words must hold texts that are not empty", param="bad_words")
        if longest := max((len(word) for word in self.bad_words if len(word) > MAX_BAD_WORD_LENGTH), default=0):
            raise LimitExceeded("a text of bad_words", longest, MAX_BAD_WORD_LENGTH, "characters", param="bad_words")
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise LimitExceeded("logit_bias", len(self.logit_bias), MAX_LOGIT_BIAS)
        for token_id, bias in self.logit_bias.items():
            _check_int("logit_bias", token_id, 0, 1 << 31)
            _check_float("logit_bias", bias, -100.0, 100.0)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        message = f"{name} is {_shown(value)}; it must be a whole number from {low} to {high}"
        raise InvalidRequest(message, param=name, code="invalid_value")


def _shown(value: object) -> str:
    """The value, short enough for an error message: a number may have thousands of digits."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _check_float(name: str, value: object, low: float, high: float, *, exclusive_low: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (exclusive_low and value == low):  # type: ignore[operator]
        above = f"above {low:g} and at most {high:g}" if exclusive_low else f"from {low:g} to {high:g}"
        raise InvalidRequest(
            f"{name} is {_shown(value)}; it must be a number {above}", param=name, code="invalid_value"
        )
