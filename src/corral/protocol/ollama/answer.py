"""Answers of /api/generate and /api/chat: chunks and the last line, or one object for all. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import msgspec

from corral.protocol.ollama.call import Call
from corral.protocol.ollama.generate import GenerateCall
from corral.protocol.ollama.tools import Calls
from corral.request import Delta, FinishReason, RequestOutput, Usage

NS_PER_S = 1_000_000_000

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Timings:
    """Nanoseconds. `prompt` is up to the first token, queueing included; `answer` from there to the last."""

    total: int
    load: int
    prompt: int = 0
    answer: int = 0


def rfc3339(now_ns: int) -> str:
    """A moment in UTC as Go prints it: nanoseconds, without zeros at their end."""
    seconds, rest = divmod(now_ns, NS_PER_S)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{moment}{fraction}Z"


def encode_line(payload: object) -> bytes:
    """One line of NDJSON; JSON holds no raw line break."""
    return _encoder.encode(payload) + b"\n"


def encode_empty(call: Call, now_ns: int) -> dict[str, Any]:
    """The answer to a call that only loads or unloads."""
    reason = "unload" if call.is_unload else "load"
    return {**_head(call, now_ns), **_content(call, "", "", []), "done": True, "done_reason": reason}


def encode_rendered(call: Call, prompt: str, now_ns: int) -> dict[str, Any]:
    """The answer to a call that wants to see its prompt."""
    info = {"rendered_template": prompt}
    return {**_head(call, now_ns), **_content(call, "", "", []), "done": False, "_debug_info": info}


class AnswerEncoder:
    """One answer under way. `prompt_ids` of its outputs, where they come, go into generate's `context`."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._usage = Usage()
        self._done_reason = ""
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._calls = Calls()
        self._told: list[dict[str, Any]] = []

    def lines(self, output: RequestOutput, now_ns: int) -> bytes:
        """The lines of what one output has gained; b"" where that is nothing to show."""
        lines = []
        for delta in self._take(output):
            logprobs = _logprobs_of(delta)
            text, calls = self._said(delta)
            if text or delta.thinking or calls or logprobs:
                content = _content(self._call, text, delta.thinking, calls)
                line = {**_head(self._call, now_ns), **content, "done": False}
                lines.append(encode_line(line | ({"logprobs": logprobs} if logprobs else {})))
        return b"".join(lines)

    def add(self, output: RequestOutput) -> None:
        """Keeps what one output has gained, for `whole`."""
        for delta in self._take(output):
            text, calls = self._said(delta)
            self._texts.append(text)
            self._thoughts.append(delta.thinking)
            self._told += calls
            self._logprobs += _logprobs_of(delta)

    def last_line(self, timings: Timings, now_ns: int) -> bytes:
        """The line that ends the stream."""
        return encode_line(self._done("", "", [], timings, now_ns))

    def whole(self, timings: Timings, now_ns: int) -> dict[str, Any]:
        """The answer in one object."""
        answer = self._done("".join(self._texts), "".join(self._thoughts), self._told, timings, now_ns)
        return answer | ({"logprobs": self._logprobs} if self._logprobs else {})

    def _take(self, output: RequestOutput) -> tuple[Delta, ...]:
        self._usage = output.usage
        self._ids += output.prompt_ids
        for delta in output.deltas:
            self._ids += delta.token_ids
            if delta.finish_reason is not None:
                self._done_reason = _done_reason(delta.finish_reason)
        return output.deltas

    def _said(self, delta: Delta) -> tuple[str, list[dict[str, Any]]]:
        """The text and the whole calls; Ollama's clients know no parts of one."""
        text, calls = self._calls.push(delta.tool_calls)
        rest = self._calls.finish() if delta.finish_reason is not None else ""
        return delta.text + text + rest, calls

    def _done(
        self, text: str, thinking: str, calls: list[dict[str, Any]], timings: Timings, now_ns: int
    ) -> dict[str, Any]:
        usage = self._usage
        payload = _head(self._call, now_ns) | _content(self._call, text, thinking, calls)
        payload |= {"done": True, "done_reason": self._done_reason}
        if isinstance(self._call, GenerateCall) and not self._call.raw and self._ids:
            payload["context"] = self._ids
        figures = {
            "total_duration": timings.total,
            "load_duration": timings.load,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_cached_count": usage.cached_tokens,  # Corral's own: of prompt_eval_count
            "prompt_eval_duration": timings.prompt,
            "eval_count": usage.completion_tokens,
            "eval_duration": timings.answer,
            "dropped_messages": usage.dropped_messages,
            "dropped_tokens": usage.dropped_tokens,
        }
        return payload | {name: value for name, value in figures.items() if value}


def _head(call: Call, now_ns: int) -> dict[str, Any]:
    return {"model": call.model, "created_at": rfc3339(now_ns)}


def _done_reason(reason: FinishReason) -> str:
    """Ollama says "stop" of an answer that calls tools, too."""
    return (FinishReason.STOP if reason is FinishReason.TOOL_CALLS else reason).value


def _content(call: Call, text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    extra: dict[str, Any] = {"thinking": thinking} if thinking else {}
    if isinstance(call, GenerateCall):
        return {"response": text, **extra}
    extra |= {"tool_calls": calls} if calls else {}
    return {"message": {"role": "assistant", "content": text, **extra}}


def _logprobs_of(delta: Delta) -> list[dict[str, Any]]:
    found = []
    for token in delta.logprobs:
        entry = _logprob(token.text_bytes, token.logprob)
        if token.top:
            entry["top_logprobs"] = [_logprob(text, logprob) for text, logprob in token.top]
        found.append(entry)
    return found


def _logprob(text: bytes, logprob: float) -> dict[str, Any]:
    """A token may be part of a character; its bytes tell all."""
    return {"token": text.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(text)}
