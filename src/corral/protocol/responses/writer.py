"""A model's deltas -> the output items of a response, and the events that tell of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from corral.protocol.ids import new_id
from corral.protocol.tool_arguments import read_arguments
from corral.request import Delta, TokenLogprob
from corral.tool_call import ToolCallDelta

Event = dict[str, Any]
Item = dict[str, Any]

_LEAST_LOGPROB = -9999.0  # OpenAI's stand-in for what JSON cannot say


@dataclass(slots=True)
class _Call:
    name: str = ""
    parts: list[str] = field(default_factory=list)


class ItemWriter:
    """Writes items one after another: thoughts, texts and calls.

    A call is told when it is whole. One that was broken or cut off is text of the message.
    """

    def __init__(self, *, with_logprobs: bool = False) -> None:
        self.items: list[Item] = []  # the last one may still be open
        self._with_logprobs = with_logprobs
        self._kind = ""  # of the open item
        self._parts: list[str] = []
        self._logprobs: list[Event] = []
        self._pending_logprobs: list[Event] = []
        self._space = ""
        self._calls: dict[int, _Call] = {}

    def push(self, delta: Delta) -> Iterator[Event]:
        """The events of what one delta adds."""
        if delta.thinking:
            yield from self._think(delta.thinking)
        elif self._with_logprobs and not delta.tool_calls:
            self._pending_logprobs += map(encode_logprob, delta.logprobs)
        yield from self._text(delta.text)
        for call in delta.tool_calls:
            yield from self._tool(call)

    def finish(self, status: str) -> Iterator[Event]:
        """The events that end the last item; `status` is that item's."""
        for call in self._calls.values():  # cut off, so no call
            yield from self._text(f"{call.name}{''.join(call.parts)}")
        self._calls = {}
        if not self.items:
            yield from self._write_text("")
        yield from self._close(status)

    def snapshot(self) -> list[Item]:
        """The items as far as they are written, for an answer that broke off."""
        if not self._kind:
            return self.items
        for _ in self._close("incomplete"):
            pass
        return self.items

    @property
    def _index(self) -> int:
        return len(self.items) - 1

    def _at(self, kind: str, **fields: Any) -> Event:
        return {"type": f"response.{kind}", "item_id": self.items[-1]["id"], "output_index": self._index, **fields}

    def _think(self, text: str) -> Iterator[Event]:
        if self._kind != "reasoning":
            item = {"id": new_id("rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
            yield from self._open("reasoning", item, {"type": "reasoning_text", "text": ""})
        self._parts.append(text)
        yield self._at("reasoning_text.delta", content_index=0, delta=text)

    def _text(self, text: str) -> Iterator[Event]:
        if not text:
            return
        if self._kind != "message" and text.isspace():
            self._space += text  # before a call, or between calls, it is no text of its own
            return
        yield from self._write_text(text)

    def _write_text(self, text: str) -> Iterator[Event]:
        text, self._space = self._space + text, ""
        if self._kind != "message":
            item = {"id": new_id("msg"), "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
            yield from self._open("message", item, _text_part("", []))
        if not text:
            return
        logprobs, self._pending_logprobs = self._pending_logprobs, []
        self._parts.append(text)
        self._logprobs += logprobs
        yield self._at("output_text.delta", content_index=0, delta=text, logprobs=_without_bytes(logprobs))

    def _tool(self, delta: ToolCallDelta) -> Iterator[Event]:
        call = self._calls.setdefault(delta.index, _Call())
        call.name = call.name or delta.name
        call.parts.append(delta.arguments)
        if delta.broken:
            del self._calls[delta.index]
            yield from self._text(delta.broken)
        elif delta.is_whole:
            del self._calls[delta.index]
            arguments = "".join(call.parts) or "{}"
            if read_arguments(arguments) is None:
                yield from self._text(f"{call.name}{arguments}")
            else:
                yield from self._write_call(call.name, arguments)

    def _write_call(self, name: str, arguments: str) -> Iterator[Event]:
        self._space = ""
        yield from self._close("completed")
        item = {
            "id": new_id("fc"),
            "type": "function_call",
            "call_id": new_id("call"),
            "name": name,
            "arguments": "",
            "status": "in_progress",
        }
        self.items.append(item)
        yield {"type": "response.output_item.added", "output_index": self._index, "item": dict(item)}
        yield self._at("function_call_arguments.delta", delta=arguments)
        yield self._at("function_call_arguments.done", name=name, arguments=arguments)
        item |= {"arguments": arguments, "status": "completed"}
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}

    def _open(self, kind: str, item: Item, part: Event) -> Iterator[Event]:
        yield from self._close("completed")
        self._kind, self._parts, self._logprobs = kind, [], []
        self.items.append(item)
        yield {"type": "response.output_item.added", "output_index": self._index, "item": dict(item)}
        yield self._at("content_part.added", content_index=0, part=part)

    def _close(self, status: str) -> Iterator[Event]:
        if not self._kind:
            return
        text, item = "".join(self._parts), self.items[-1]
        if self._kind == "message":
            part = _text_part(text, self._logprobs)
            yield self._at("output_text.done", content_index=0, text=text, logprobs=_without_bytes(self._logprobs))
        else:
            part = {"type": "reasoning_text", "text": text}
            yield self._at("reasoning_text.done", content_index=0, text=text)
        yield self._at("content_part.done", content_index=0, part=part)
        item |= {"content": [part], "status": status}
        self._kind = ""
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}


def _text_part(text: str, logprobs: list[Event]) -> Event:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def encode_logprob(token: TokenLogprob) -> Event:
    """A token of the answer as an item has it."""
    top = [_one(text_bytes, logprob) for text_bytes, logprob in token.top]
    return {**_one(token.text_bytes, token.logprob), "top_logprobs": top}


def _one(text_bytes: bytes, logprob: float) -> Event:
    value = logprob if math.isfinite(logprob) else _LEAST_LOGPROB
    return {"token": text_bytes.decode("utf-8", "replace"), "bytes": list(text_bytes), "logprob": value}


def _without_bytes(logprobs: list[Event]) -> list[Event]:
    """As events have them."""
    return [
        {
            "token": one["token"],
            "logprob": one["logprob"],
            "top_logprobs": [{"token": top["token"], "logprob": top["logprob"]} for top in one["top_logprobs"]],
        }
        for one in logprobs
    ]
