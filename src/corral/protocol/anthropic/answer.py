"""An answer's content blocks, as its deltas make them: events of a stream, or the whole message. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corral.protocol.anthropic.messages import MessagesCall
from corral.protocol.ids import new_id
from corral.protocol.tool_arguments import read_arguments
from corral.request import Delta, FinishReason, RequestOutput, Usage
from corral.tool_call import ToolCallDelta

SIGNATURE = "corral"  # clients send it back with the thinking; there is nothing to prove

Event = dict[str, Any]
UNENDED: Event = {"stop_reason": None, "stop_sequence": None, "stop_details": None, "container": None}


class _Call:
    """A tool call under way."""

    def __init__(self) -> None:
        self.name = ""
        self.parts: list[str] = []
        self.is_open = False  # its block has been begun

    @property
    def arguments(self) -> str:
        return "".join(self.parts)


class BlockWriter:
    """Turns deltas into the events of content blocks, one block at a time.

    A tool's input is told when it is whole, unless the tool wants it as it is written: clients run what they are told,
    and a call that turns out to be none is text.
    """

    def __init__(self, call: MessagesCall) -> None:
        self._shows_thinking = call.shows_thinking
        self._eager_tools = call.eager_tools
        self._kind = ""  # of the block that is open
        self._index = -1
        self._space = ""  # what a text block would begin with, as long as it is white space alone
        self._calls: dict[int, _Call] = {}
        self.num_tool_uses = 0

    def push(self, delta: Delta) -> Iterator[Event]:
        """The events of what an answer gained."""
        if delta.thinking:
            yield from self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            if self._shows_thinking:
                yield self._delta({"type": "thinking_delta", "thinking": delta.thinking})
        yield from self._text(delta.text)
        for call in delta.tool_calls:
            yield from self._tool(call)

    def finish(self) -> Iterator[Event]:
        """The events that end the last block."""
        for call in self._calls.values():  # cut off, so no call
            if not call.is_open:
                yield from self._text(f"{call.name}{call.arguments}")
        if self._space and self._index < 0:
            yield from self._write_text("")
        yield from self._close()

    def _text(self, text: str) -> Iterator[Event]:
        if not text:
            return
        if self._kind != "text" and text.isspace():
            self._space += text  # between calls, or before one, it is no text of its own
            return
        yield from self._write_text(text)

    def _write_text(self, text: str) -> Iterator[Event]:
        text, self._space = self._space + text, ""
        yield from self._open("text", {"type": "text", "text": "", "citations": None})
        yield self._delta({"type": "text_delta", "text": text})

    def _tool(self, delta: ToolCallDelta) -> Iterator[Event]:
        call = self._calls.setdefault(delta.index, _Call())
        call.name = call.name or delta.name
        if delta.broken:
            del self._calls[delta.index]
            if call.is_open:
                self.num_tool_uses -= 1
                yield from self._close()
            yield from self._text(delta.broken)
            return
        call.parts.append(delta.arguments)
        if call.name in self._eager_tools:
            if not call.is_open:
                call.is_open = True
                yield from self._open_tool(call.name)
            if delta.arguments:
                yield self._delta({"type": "input_json_delta", "partial_json": delta.arguments})
        if not delta.is_whole:
            return
        del self._calls[delta.index]
        if not call.is_open:
            yield from self._whole_tool(call)
        yield from self._close()

    def _whole_tool(self, call: _Call) -> Iterator[Event]:
        if read_arguments(call.arguments) is None:
            yield from self._text(f"{call.name}{call.arguments}")
            return
        yield from self._open_tool(call.name)
        yield self._delta({"type": "input_json_delta", "partial_json": call.arguments or "{}"})

    def _open_tool(self, name: str) -> Iterator[Event]:
        self._space = ""
        self.num_tool_uses += 1
        yield from self._close()
        block = {"type": "tool_use", "id": new_id("toolu"), "name": name, "input": {}, "caller": {"type": "direct"}}
        yield from self._open("tool_use", block)

    def _open(self, kind: str, block: Event) -> Iterator[Event]:
        if self._kind == kind:
            return
        yield from self._close()
        self._kind = kind
        self._index += 1
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: Event) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> Iterator[Event]:
        if self._kind == "thinking":
            yield self._delta({"type": "signature_delta", "signature": SIGNATURE})
        if self._kind:
            yield {"type": "content_block_stop", "index": self._index}
        self._kind = ""


class Ending:
    """How an answer ended, and what it took."""

    def __init__(self, call: MessagesCall) -> None:
        self._call = call
        self._reason: FinishReason | None = None
        self._stop: str | int | None = None
        self.usage = Usage()

    def add(self, output: RequestOutput) -> None:
        self.usage = output.usage
        for delta in output.deltas:
            if delta.finish_reason is not None:
                self._reason, self._stop = delta.finish_reason, delta.stop_reason

    def payload(self, num_tool_uses: int) -> dict[str, Any]:
        """Why it ended; only calls that were told count as such."""
        if self._reason is FinishReason.LENGTH:
            reason = "model_context_window_exceeded" if self._call.is_clamped else "max_tokens"
        elif num_tool_uses and self._reason is FinishReason.TOOL_CALLS:
            reason = "tool_use"
        elif isinstance(self._stop, str) and self._stop in self._call.stop_sequences:
            return {**UNENDED, "stop_reason": "stop_sequence", "stop_sequence": self._stop}
        else:
            reason = "end_turn"
        return {**UNENDED, "stop_reason": reason}


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Anthropic's counts: input_tokens are those that came from no cache."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,  # nobody pays for it here
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": None,
        "server_tool_use": None,
    }


def encode_message(call: MessagesCall, model: str, content: list[Event], ending: dict[str, Any], usage: Usage) -> Event:
    return {
        "id": call.request.request_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        **ending,
        "usage": {**encode_usage(usage), "cache_creation": None, "inference_geo": None, "service_tier": "standard"},
    }


class MessageCollector:
    """Makes the whole message of a request that is not streamed."""

    def __init__(self, call: MessagesCall) -> None:
        self._call = call
        self._writer = BlockWriter(call)
        self._ending = Ending(call)
        self._events: list[Event] = []

    def add(self, output: RequestOutput) -> None:
        self._ending.add(output)
        for delta in output.deltas:
            self._events += self._writer.push(delta)

    def whole(self, model: str) -> Event:
        self._events += self._writer.finish()
        ending = self._ending.payload(self._writer.num_tool_uses)
        return encode_message(self._call, model, _fold(self._events), ending, self._ending.usage)


_PARTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def _fold(events: list[Event]) -> list[Event]:
    """Blocks from their events."""
    blocks: list[Event] = []
    parts: list[str] = []
    for event in events:
        match event["type"]:
            case "content_block_start":
                blocks.append(dict(event["content_block"]))
                parts = []
            case "content_block_delta":
                delta = event["delta"]
                if delta["type"] == "signature_delta":
                    blocks[-1]["signature"] = delta["signature"]
                else:
                    parts.append(delta[_PARTS[delta["type"]]])
            case "content_block_stop":
                block, text = blocks[-1], "".join(parts)
                block[_FIELDS[block["type"]]] = read_arguments(text) or {} if block["type"] == "tool_use" else text
    return blocks


_FIELDS = {"text": "text", "thinking": "thinking", "tool_use": "input"}
