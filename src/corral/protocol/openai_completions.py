"""OpenAI's /v1/completions: body -> Requests, RequestOutputs -> chunks and answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidRequest
from corral.protocol.answer import Answers, encode_usage, total_usage
from corral.protocol.fields import SamplingFields, read_fields, show_value
from corral.protocol.openai_errors import reply_to
from corral.protocol.sse import DONE, encode_event
from corral.request import Request, RequestOutput, Usage, new_request_id

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MAX_PROMPTS = 256
MAX_CHOICES = 1024  # prompts x n

UNSUPPORTED: dict[str, tuple[Any, ...]] = {"best_of": (None, 1), "logprobs": (None,), "suffix": (None, "")}
HARMLESS = frozenset({"user"})


class CompletionFields(SamplingFields):
    prompt: Any
    echo: bool | None = None


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """One request per prompt. Choice `i * n + j` is answer j to prompt i."""

    response_id: str
    requests: tuple[Request, ...]
    stream: bool
    include_usage: bool
    echo: bool

    @property
    def n(self) -> int:
        return self.requests[0].sampling.n

    def echo_of(self, prompt_index: int) -> str:
        """The text that each answer to a prompt begins with: the prompt, if echo was asked for."""
        prompt = self.requests[prompt_index].prompt
        return prompt if self.echo and isinstance(prompt, str) else ""


def parse_completion(body: Mapping[str, Any]) -> CompletionCall:
    """Reads a body.

    Raises:
        InvalidRequest: names the field at fault; unknown fields and those not supported yet are refused, not dropped.
    """
    fields = read_fields(CompletionFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS)
    prompts = _parse_prompts(fields.prompt)
    sampling = fields.sampling(DEFAULT_MAX_TOKENS if fields.max_tokens is None else fields.max_tokens)
    if len(prompts) * sampling.n > MAX_CHOICES:
        message = f"{len(prompts)} prompts times n = {sampling.n} is more than {MAX_CHOICES} answers"
        raise InvalidRequest(message, param="n")
    if fields.echo and any(not isinstance(prompt, str) for prompt in prompts):
        raise InvalidRequest("echo is not supported with token ids; send the prompt as text", param="echo")
    response_id = new_request_id("cmpl")
    requests = tuple(
        Request(request_id=f"{response_id}-{i}", model=fields.model, prompt=prompt, sampling=sampling)
        for i, prompt in enumerate(prompts)
    )
    return CompletionCall(
        response_id, requests, stream=bool(fields.stream), include_usage=fields.include_usage(), echo=bool(fields.echo)
    )


def _parse_prompts(prompt: object) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if type(prompt[0]) is int:
            return [_check_ids("prompt", prompt)]
        if len(prompt) > MAX_PROMPTS:
            message = f"prompt is a list of {len(prompt)}; at most {MAX_PROMPTS} prompts are allowed"
            raise InvalidRequest(message, param="prompt")
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


class CompletionStream:
    """Encodes one streamed answer: open, then encode for every output, then close."""

    def __init__(self, call: CompletionCall, model: str, created: int) -> None:
        self._call = call
        self._usages = [Usage()] * len(call.requests)
        self._base = {"id": call.response_id, "object": "text_completion", "created": created, "model": model}

    def open(self) -> bytes:
        """The echoed prompts; b"" without echo."""
        events = []
        for prompt_index in range(len(self._call.requests)):
            if text := self._call.echo_of(prompt_index):
                first = prompt_index * self._call.n
                events += [self._event(first + j, text, None) for j in range(self._call.n)]
        return b"".join(events)

    def encode(self, prompt_index: int, output: RequestOutput) -> bytes:
        """The events of one prompt's output; b"" when no answer gained anything to show."""
        self._usages[prompt_index] = output.usage
        first = prompt_index * self._call.n
        events = []
        for delta in output.deltas:
            if delta.text or delta.finish_reason is not None:
                reason = None if delta.finish_reason is None else delta.finish_reason.value
                events.append(self._event(first + delta.index, delta.text, reason))
        return b"".join(events)

    def close(self) -> bytes:
        """The usage chunk, if asked for, and the end mark."""
        if not self._call.include_usage:
            return DONE
        usage = encode_usage(total_usage(self._usages))
        return encode_event({**self._base, "choices": [], "usage": usage}) + DONE

    def fail(self, error: Exception) -> bytes:
        """The error as the last event; no end mark follows it."""
        return reply_to(error).event()

    def _event(self, index: int, text: str, finish_reason: str | None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
        chunk: dict[str, object] = {**self._base, "choices": [choice]}
        if self._call.include_usage:
            chunk["usage"] = None
        return encode_event(chunk)


def encode_completion_answer(
    call: CompletionCall, answers: Sequence[Answers], model: str, created: int
) -> dict[str, Any]:
    """The whole answer of a call that is not streamed; `answers` has one entry per prompt."""
    choices = [
        {
            "index": prompt_index * call.n + index,
            "text": call.echo_of(prompt_index) + text,
            "logprobs": None,
            "finish_reason": answer.finish_reasons[index],
        }
        for prompt_index, answer in enumerate(answers)
        for index, text in enumerate(answer.texts)
    ]
    return {
        "id": call.response_id,
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": encode_usage(total_usage(answer.usage for answer in answers)),
    }
