"""What a server says in OpenAI's chat and completion protocols, put into an Answer."""

from __future__ import annotations

from typing import Any

import msgspec

from corral.compare.answer import Answer
from corral.compare.events import EventParser, EventTooLong

DONE = b"[DONE]"
MAX_ERROR = 300  # characters of a server's refusal that are kept
MAX_BODY = 64 << 20  # bytes of one answer


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # as Ollama and newer vLLM name it
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Chunk)


class Reading:
    """Fills `answer` from the bytes of one reply. It never raises: what goes wrong stands in the answer's error."""

    def __init__(self, answer: Answer, *, is_streamed: bool) -> None:
        self._answer = answer
        self._is_streamed = is_streamed
        self._is_events = False
        self._parser = EventParser()
        self._is_done = False
        self._body: list[bytes] = []
        self._num_bytes = 0
        self._reasoning: list[str] = []
        self._text: list[str] = []

    @property
    def is_over(self) -> bool:
        """A fault came, or too much: the rest need not be read."""
        return bool(self._answer.error)

    def head(self, status: int, content_type: str, now: float) -> None:
        self._answer.status, self._answer.head = status, now
        self._is_events = self._is_streamed and status == 200 and not content_type.startswith("application/json")

    def take(self, part: bytes, now: float) -> None:
        """Some bytes of the body, which came at `now`."""
        self._num_bytes += len(part)
        if self._num_bytes > MAX_BODY:
            self._fail(f"the answer has more than {MAX_BODY} bytes")
        elif not self._is_events:
            self._body.append(part)
        else:
            try:
                for event in self._parser.feed(part):
                    self._event(event, now)
            except EventTooLong as error:
                self._fail(str(error))

    def finish(self) -> None:
        """After the last byte."""
        answer = self._answer
        if not self._is_events:
            self._whole(b"".join(self._body))
        elif not self._is_done:
            self._fail("the stream ended without [DONE]")
        answer.text = "".join(self._reasoning) + "".join(self._text)
        if not answer.text:
            self._fail(f"no text came{f', {n} tokens by its usage' if (n := answer.completion_tokens) else ''}")

    def cut(self, why: str) -> None:
        """The reply ended before its end; what came is kept."""
        self._answer.text = "".join(self._reasoning) + "".join(self._text)
        self._fail(why)

    def _event(self, event: bytes, now: float) -> None:
        if event == DONE:
            self._is_done = True
        elif self._take_object(event) and not self._is_done:
            self._answer.content_times.append(now)

    def _whole(self, body: bytes) -> None:
        if self._answer.status != 200:
            self._fail(f"status {self._answer.status}: {_shown(body)}")
        elif self._is_streamed and not self._answer.error:
            self._take_object(body)
            self._fail(f"no stream of events came, but {_shown(body)}")
        else:
            self._take_object(body)

    def _take_object(self, data: bytes) -> bool:
        """Whether it has text."""
        try:
            chunk = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._fail(f"not of the protocol ({error}): {_shown(data)}")
            return False
        if chunk.error:
            self._fail(f"the server sent {_shown(data)}")
            return False
        if chunk.usage is not None:
            self._usage(chunk.usage)
        has_text = False
        for choice in chunk.choices or ():
            has_text |= self._choice(choice)
        return has_text

    def _choice(self, choice: _Choice) -> bool:
        if choice.finish_reason:
            self._answer.finish_reason = choice.finish_reason
        message = choice.delta or choice.message
        reasoning = (message.reasoning_content or message.reasoning or "") if message else ""
        text = choice.text or ((message.content or "") if message else "")
        for call in (message.tool_calls or ()) if message else ():
            if call.function is not None:
                text += (call.function.name or "") + (call.function.arguments or "")
        if reasoning:
            self._reasoning.append(reasoning)
        if text:
            self._text.append(text)
        return bool(reasoning or text)

    def _usage(self, usage: _Usage) -> None:
        answer, details = self._answer, usage.prompt_tokens_details
        answer.prompt_tokens, answer.completion_tokens = usage.prompt_tokens, usage.completion_tokens
        if details is not None:
            answer.cached_tokens = details.cached_tokens

    def _fail(self, why: str) -> None:
        self._answer.error = self._answer.error or why


def _shown(data: bytes) -> str:
    return " ".join(data[: 4 * MAX_ERROR].decode("utf-8", "replace").split())[:MAX_ERROR] or "nothing"
