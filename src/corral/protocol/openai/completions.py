"""OpenAI's /v1/completions: body -> Requests. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_CHOICES, MAX_PROMPTS
from corral.protocol.fields import read_fields, show_value
from corral.protocol.openai.sampling import REASONS, UNSUPPORTED_ANYWHERE, SamplingFields, check_top
from corral.request import Request, new_request_id

DEFAULT_MAX_TOKENS = 16  # OpenAI's

UNSUPPORTED: dict[str, tuple[Any, ...]] = {**UNSUPPORTED_ANYWHERE, "prompt_embeds": (None,)}
HARMLESS = frozenset({"user"})


class CompletionFields(SamplingFields):
    prompt: Any
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None
    best_of: int | None = None


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """One request per prompt. Choice `i * n + j` is answer j to prompt i.

    Args:
        echo_texts: of each prompt, what its answers begin with; a prompt of ids has None until its text is known.
        is_scoring: nothing was to be written: the token that was drawn after all is left out.
    """

    response_id: str
    requests: tuple[Request, ...]
    stream: bool
    include_usage: bool
    echo: bool
    echo_texts: tuple[str | None, ...] = ()
    continuous_usage: bool = False
    with_logprobs: bool = False
    with_prompt_logprobs: bool = False
    is_scoring: bool = False
    return_token_ids: bool = False
    tokens_as_ids: bool = False

    @property
    def n(self) -> int:
        return self.requests[0].sampling.n

    @property
    def echoes_logprobs(self) -> bool:
        """The prompt's tokens stand before the answer's in its log-probabilities."""
        return self.echo and self.with_logprobs

    def echo_of(self, prompt_index: int) -> str:
        """The text that each answer to a prompt begins with: the prompt, if echo was asked for."""
        return (self.echo_texts[prompt_index] or "") if self.echo else ""


def parse_completion(body: Mapping[str, Any], ignored: list[str] | None = None) -> CompletionCall:
    """Reads a body.

    Args:
        ignored: gets the paths of unknown fields; None refuses them.

    Raises:
        InvalidRequest: names the field at fault; what is unknown or cannot be obeyed is refused, not dropped.
    """
    fields = read_fields(
        CompletionFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS, reasons=REASONS, ignored=ignored
    )
    prompts = _parse_prompts(fields.prompt)
    _check_together(fields)
    is_scoring = fields.max_tokens == 0
    if is_scoring:
        fields = fields.model_copy(update={"max_tokens": 1, "min_tokens": None})
    if fields.echo and fields.logprobs is not None and fields.prompt_logprobs is None:
        sampling = fields.model_copy(update={"prompt_logprobs": fields.logprobs, "stream": None})
    else:
        sampling = fields
    params = sampling.sampling(DEFAULT_MAX_TOKENS if fields.max_tokens is None else fields.max_tokens, fields.logprobs)
    if len(prompts) * params.n > MAX_CHOICES:
        message = f"{len(prompts)} prompts times n = {params.n} is more than {MAX_CHOICES} answers"
        raise InvalidRequest(message, param="n", code="limit_exceeded")
    if fields.best_of not in (None, params.n):
        message = f"best_of is {show_value(fields.best_of)}; it must be n, {params.n}, as no answers are thrown away"
        raise InvalidRequest(message, param="best_of", code="unsupported_parameter")
    own_id = new_request_id("cmpl")
    grammar = fields.grammar(ignored)
    requests = tuple(
        Request(
            request_id=f"{own_id}-{i}",
            prompt=prompt,
            sampling=params,
            suffix=fields.suffix or None,
            grammar=grammar,
            add_special_tokens=fields.add_special_tokens is not False,
            **fields.request_fields(),
        )
        for i, prompt in enumerate(prompts)
    )
    return CompletionCall(
        fields.response_id(own_id),
        requests,
        stream=bool(fields.stream),
        include_usage=fields.include_usage(),
        echo=bool(fields.echo),
        echo_texts=tuple(prompt if isinstance(prompt, str) else None for prompt in prompts),
        continuous_usage=fields.continuous_usage(),
        with_logprobs=fields.logprobs is not None,
        with_prompt_logprobs=fields.prompt_logprobs is not None,
        is_scoring=is_scoring,
        return_token_ids=bool(fields.return_token_ids),
        tokens_as_ids=bool(fields.return_tokens_as_token_ids),
    )


def _check_together(fields: CompletionFields) -> None:
    """Refuses fields that make no sense beside one another."""
    check_top("logprobs", fields.logprobs)
    if fields.max_tokens == 0 and not fields.echo and fields.prompt_logprobs is None:
        message = "max_tokens is 0; it must be a whole number from 1, or echo or prompt_logprobs must be given"
        raise InvalidRequest(message, param="max_tokens")
    if fields.suffix and fields.echo and fields.logprobs is not None:
        message = "logprobs with echo are of a prompt that is not filled in; leave suffix, echo or logprobs out"
        raise InvalidRequest(message, param="suffix")


def _parse_prompts(prompt: object) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if type(prompt[0]) is int:
            return [_check_ids("prompt", prompt)]
        if len(prompt) > MAX_PROMPTS:
            raise LimitExceeded("prompt", len(prompt), MAX_PROMPTS, "prompts")
        if all(isinstance(item, str) for item in prompt):
            return list(prompt)
        if all(isinstance(item, list) for item in prompt):
            return [_check_ids(f"prompt[{i}]", item) for i, item in enumerate(prompt)]
    message = f"prompt is {show_value(prompt)}; it must be a string, a list of strings, a list of token ids, or a list "
    message += "of lists of token ids"
    raise InvalidRequest(message, param="prompt", code="invalid_type")


def _check_ids(where: str, ids: list[Any]) -> list[int]:
    for position, token_id in enumerate(ids):
        if type(token_id) is not int or not 0 <= token_id < 1 << 31:
            message = f"{where}[{position}] is {show_value(token_id)}; it must be a token id"
            raise InvalidRequest(message, param="prompt", code="invalid_type")
    return ids
