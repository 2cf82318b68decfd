"""RequestOutput -> chunks and answers of OpenAI's /v1/chat/completions. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from corral.protocol.answer import Answers, Call, count_thinking, encode_usage
from corral.protocol.ids import new_id
from corral.protocol.openai.errors import reply_to
from corral.protocol.openai.logprobs import chat_logprobs, prompt_logprobs
from corral.protocol.sse import DONE, encode_event
from corral.request import Delta, FinishReason, RequestOutput, Usage
from corral.tool_call import ToolCallDelta

if TYPE_CHECKING:
    from corral.protocol.openai.chat import ChatCall

Payload = dict[str, Any]


class ChatStream:
    """Encodes one streamed answer: open, then encode for every output, then close."""

    def __init__(self, call: ChatCall, model: str, created: int, fingerprint: str | None = None) -> None:
        self._call = call
        self._usage = Usage()
        self._num_thinking_tokens = 0
        self._base: Payload = {
            "id": call.response_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def open(self) -> bytes:
        """The first chunk of each answer: its role, and no text unless the client wants to read its own again."""
        events = []
        for index in range(self._call.request.sampling.n):
            events.append(self._event(index, {"role": "assistant", "content": ""}))
            if self._call.echo:
                events.append(self._event(index, {"content": self._call.echo}))
        return b"".join(events)

    def encode(self, _: int, output: RequestOutput) -> bytes:
        """The events of one output; b"" when no answer gained anything to show."""
        self._usage = output.usage
        events = []
        if output.prompt_ids and self._call.return_token_ids:
            chunk = {**self._base, "choices": [], "prompt_token_ids": list(output.prompt_ids)}
            events.append(encode_event(self._with_usage(chunk)))
        for delta in output.deltas:
            self._num_thinking_tokens += count_thinking(delta)
            events += self._events(delta)
        return b"".join(events)

    def close(self) -> bytes:
        """The usage chunk, if asked for, and the end mark."""
        if not self._call.include_usage:
            return DONE
        usage = encode_usage(self._usage, self._num_thinking_tokens)
        return encode_event({**self._base, "choices": [], "usage": usage}) + DONE

    def fail(self, error: Exception, request_id: str) -> bytes:
        """The error as the last event; no end mark follows it."""
        return reply_to(error).naming(request_id).event()

    def _events(self, delta: Delta) -> Iterator[bytes]:
        """A chunk for each thing that an answer gained; what belongs to its tokens goes with the first."""
        of_tokens: Payload = {}
        if self._call.with_logprobs and delta.logprobs:
            of_tokens["logprobs"] = chat_logprobs(delta.logprobs, as_ids=self._call.tokens_as_ids)
        if self._call.return_token_ids and delta.token_ids:
            of_tokens["token_ids"] = list(delta.token_ids)
        gains = list(self._gains(delta))
        if of_tokens and not gains:
            gains = [{"content": ""}]  # the text of these tokens is held back, or hidden
        for gain in gains:
            yield self._event(delta.index, gain, **of_tokens)
            of_tokens = {}
        if delta.finish_reason is not None:
            reason = _finish_reason(self._call, delta.finish_reason.value)
            yield self._event(delta.index, {}, finish_reason=reason, **_stop_reason(delta.stop_reason))

    def _gains(self, delta: Delta) -> Iterator[Payload]:
        if delta.thinking and self._call.include_reasoning:
            yield _reasoning(delta.thinking)
        if delta.text:
            yield {"content": delta.text}
        for call in delta.tool_calls:
            if call.broken:
                yield {"content": call.broken}
            elif not self._call.is_legacy:
                yield {"tool_calls": [_call_delta(call)]}
            elif call.index == 0:
                if call.name or call.arguments:
                    yield {"function_call": _function_delta(call)}
            elif text := _as_text(call):
                yield {"content": text}

    def _event(self, index: int, delta: Payload, finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason, **more}
        return encode_event(self._with_usage({**self._base, "choices": [choice]}))

    def _with_usage(self, chunk: Payload) -> Payload:
        if self._call.continuous_usage:
            chunk["usage"] = encode_usage(self._usage, self._num_thinking_tokens)
        elif self._call.include_usage:
            chunk["usage"] = None  # as OpenAI: every chunk but the last says that usage is still to come
        return chunk


def encode_chat_answer(
    call: ChatCall, answers: Answers, model: str, created: int, fingerprint: str | None = None
) -> Payload:
    """The whole answer of a request that is not streamed."""
    payload: Payload = {
        "id": call.response_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [_choice(call, answers, index) for index in range(call.request.sampling.n)],
        "usage": encode_usage(answers.usage, answers.num_thinking_tokens),
    }
    if call.with_prompt_logprobs:
        payload["prompt_logprobs"] = prompt_logprobs(answers.prompt_logprobs)
    if call.return_token_ids:
        payload["prompt_token_ids"] = list(answers.prompt_ids)
    return payload


def _choice(call: ChatCall, answers: Answers, index: int) -> Payload:
    choice: Payload = {
        "index": index,
        "message": _message(call, answers, index),
        "logprobs": chat_logprobs(answers.logprobs[index], as_ids=call.tokens_as_ids) if call.with_logprobs else None,
        "finish_reason": _finish_reason(call, answers.finish_reasons[index]),
        **_stop_reason(answers.stop_reasons[index]),
    }
    if call.return_token_ids:
        choice["token_ids"] = answers.token_ids[index]
    return choice


def _message(call: ChatCall, answers: Answers, index: int) -> Payload:
    calls = answers.calls[index]
    text = call.echo + answers.texts[index]
    if call.is_legacy:
        text += "".join(_call_text(extra) for extra in calls[1:])
    message: Payload = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if answers.thinking[index] and call.include_reasoning:
        message |= _reasoning(answers.thinking[index])
    if calls and call.is_legacy:
        message["function_call"] = _function(calls[0])
    elif calls:
        message["tool_calls"] = [
            {"id": new_id("call"), "type": "function", "function": _function(called)} for called in calls
        ]
    return message


def _reasoning(text: str) -> Payload:
    """Under both names: vLLM's of now, and that of DeepSeek, which vLLM had and most clients read."""
    return {"reasoning": text, "reasoning_content": text}


def _function(call: Call) -> Payload:
    return {"name": call.name, "arguments": call.arguments}


def _call_delta(call: ToolCallDelta) -> Payload:
    if not call.name:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {"index": call.index, "id": new_id("call"), "type": "function", "function": _function_delta(call)}


def _function_delta(call: ToolCallDelta) -> Payload:
    return {"name": call.name, "arguments": call.arguments} if call.name else {"arguments": call.arguments}


# An answer to `functions` has room for one call. A model that makes more of them has the others shown as text.


def _as_text(call: ToolCallDelta) -> str:
    head = f'\n{{"name": {_json(call.name)}, "arguments": ' if call.name else ""
    return head + call.arguments + ("}" if call.is_whole else "")


def _call_text(call: Call) -> str:
    return f'\n{{"name": {_json(call.name)}, "arguments": {call.arguments}}}'


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _finish_reason(call: ChatCall, reason: str | None) -> str | None:
    """OpenAI says "tool_calls" where the model chose to call, or which tool, and "stop" where the client named it."""
    if reason != FinishReason.TOOL_CALLS:
        return reason
    if call.is_named:
        return FinishReason.STOP.value
    return "function_call" if call.is_legacy else reason


def _stop_reason(stop_reason: str | int | None) -> Payload:
    """vLLM's field: the stop string or token of the request that ended the answer."""
    return {} if stop_reason is None else {"stop_reason": stop_reason}
