"""RequestOutputs -> chunks and answers of OpenAI's /v1/completions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from corral.protocol.answer import Answers, encode_usage, total_usage
from corral.protocol.openai.errors import reply_to
from corral.protocol.openai.logprobs import LegacyLogprobs, prompt_logprobs
from corral.protocol.sse import DONE, encode_event
from corral.request import Delta, FinishReason, RequestOutput, TokenLogprob, Usage

if TYPE_CHECKING:
    from corral.protocol.openai.completions import CompletionCall

Payload = dict[str, Any]


class CompletionStream:
    """Encodes one streamed answer: open, then encode for every output, then close."""

    def __init__(self, call: CompletionCall, model: str, created: int, fingerprint: str | None = None) -> None:
        self._call = call
        self._usages = [Usage()] * len(call.requests)
        self._logprobs = [LegacyLogprobs(as_ids=call.tokens_as_ids) for _ in range(len(call.requests) * call.n)]
        self._base: Payload = {
            "id": call.response_id,
            "object": "text_completion",
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def open(self) -> bytes:
        """The echoed prompts; b"" without echo, and where their log-probabilities are still to come."""
        if self._call.echoes_logprobs:
            return b""
        return b"".join(self._echo(index, ()) for index in range(len(self._call.requests)))

    def encode(self, prompt_index: int, output: RequestOutput) -> bytes:
        """The events of one prompt's output; b"" when no answer gained anything to show."""
        self._usages[prompt_index] = _shown_usage(self._call, output.usage)
        first = prompt_index * self._call.n
        events = []
        if output.prompt_ids and self._call.return_token_ids:
            ids = list(output.prompt_ids)
            events += [self._event(first + j, "", prompt_token_ids=ids) for j in range(self._call.n)]
        if output.prompt_logprobs and self._call.echoes_logprobs:
            events.append(self._echo(prompt_index, output.prompt_logprobs))
        for delta in output.deltas:
            events.append(self._delta(first + delta.index, delta))
        return b"".join(events)

    def close(self) -> bytes:
        """The usage chunk, if asked for, and the end mark."""
        if not self._call.include_usage:
            return DONE
        usage = encode_usage(total_usage(self._usages))
        return encode_event({**self._base, "choices": [], "usage": usage}) + DONE

    def fail(self, error: Exception, request_id: str) -> bytes:
        """The error as the last event; no end mark follows it."""
        return reply_to(error).naming(request_id).event()

    def _echo(self, prompt_index: int, tokens: Sequence[TokenLogprob]) -> bytes:
        """The prompt, as the beginning of each of its answers."""
        text = self._call.echo_of(prompt_index)
        if not text and not tokens:
            return b""
        events = []
        for index in range(prompt_index * self._call.n, (prompt_index + 1) * self._call.n):
            more: Payload = {}
            if tokens:
                is_shown = _begins(text, tokens)
                more["logprobs"] = self._logprobs[index].encode(tokens, first_is_shown=is_shown)
            else:
                self._logprobs[index].skip(len(text))
            events.append(self._event(index, text, **more))
        return b"".join(events)

    def _delta(self, index: int, delta: Delta) -> bytes:
        more: Payload = {}
        if delta.finish_reason is not None and delta.stop_reason is not None:
            more["stop_reason"] = delta.stop_reason
        reason = None if delta.finish_reason is None else delta.finish_reason.value
        if self._call.is_scoring:
            return b"" if reason is None else self._event(index, "", FinishReason.LENGTH.value)
        if self._call.with_logprobs and delta.logprobs:
            more["logprobs"] = self._logprobs[index].encode(delta.logprobs)
        if self._call.return_token_ids and delta.token_ids:
            more["token_ids"] = list(delta.token_ids)
        return self._event(index, delta.text, reason, **more) if delta.text or reason or more else b""

    def _event(self, index: int, text: str, finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason, **more}
        chunk: Payload = {**self._base, "choices": [choice]}
        if self._call.continuous_usage:
            chunk["usage"] = encode_usage(total_usage(self._usages))
        elif self._call.include_usage:
            chunk["usage"] = None
        return encode_event(chunk)


def encode_completion_answer(
    call: CompletionCall, answers: Sequence[Answers], model: str, created: int, fingerprint: str | None = None
) -> Payload:
    """The whole answer of a call that is not streamed; `answers` has one entry per prompt."""
    return {
        "id": call.response_id,
        "object": "text_completion",
        "created": created,
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [
            _choice(call, answer, prompt_index, index)
            for prompt_index, answer in enumerate(answers)
            for index in range(call.n)
        ],
        "usage": encode_usage(total_usage(_shown_usage(call, answer.usage) for answer in answers)),
    }


def _choice(call: CompletionCall, answer: Answers, prompt_index: int, index: int) -> Payload:
    echoed = call.echo_of(prompt_index)
    choice: Payload = {
        "index": prompt_index * call.n + index,
        "text": echoed if call.is_scoring else echoed + answer.texts[index],
        "logprobs": _logprobs(call, answer, echoed, index) if call.with_logprobs else None,
        "finish_reason": FinishReason.LENGTH.value if call.is_scoring else answer.finish_reasons[index],
    }
    if answer.stop_reasons[index] is not None and not call.is_scoring:
        choice["stop_reason"] = answer.stop_reasons[index]
    if call.with_prompt_logprobs:
        choice["prompt_logprobs"] = prompt_logprobs(answer.prompt_logprobs)
    if call.return_token_ids:
        choice["prompt_token_ids"] = list(answer.prompt_ids)
        choice["token_ids"] = [] if call.is_scoring else answer.token_ids[index]
    return choice


def _logprobs(call: CompletionCall, answer: Answers, echoed: str, index: int) -> Payload:
    tokens = () if call.is_scoring else tuple(answer.logprobs[index])
    if not call.echo:
        return LegacyLogprobs(as_ids=call.tokens_as_ids).encode(tokens)
    encoder = LegacyLogprobs(as_ids=call.tokens_as_ids)
    of_prompt = encoder.encode(answer.prompt_logprobs, first_is_shown=_begins(echoed, answer.prompt_logprobs))
    of_answer = encoder.encode(tokens)
    return {name: of_prompt[name] + of_answer[name] for name in of_prompt}


def _begins(text: str, tokens: Sequence[TokenLogprob]) -> bool:
    """Whether the first of the prompt's tokens is part of its text: the one that marks a text's beginning is not."""
    return bool(tokens) and text.encode().startswith(tokens[0].text_bytes)


def _shown_usage(call: CompletionCall, usage: Usage) -> Usage:
    """Without the token that nobody asked for."""
    return replace(usage, completion_tokens=0) if call.is_scoring else usage
