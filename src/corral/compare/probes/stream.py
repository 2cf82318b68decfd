"""A streamed chat, as it comes and when it is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from corral.compare.chunks import DONE
from corral.compare.engines.replies import at, objects, text
from corral.compare.events import EventParser
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply, Talk, request_of, talk

CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Stream:
    """The events of one.

    Args:
        chunks: parsed; what is no JSON object stands in `odd`.
        is_done: [DONE] came, and `after_done` tells how many events came behind it.
    """

    chunks: list[dict[str, Any]] = field(default_factory=list)
    odd: list[bytes] = field(default_factory=list)
    is_done: bool = False
    after_done: int = 0

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [choice for chunk in self.chunks for choice in objects(chunk.get("choices"))]

    @property
    def text(self) -> str:
        """Reasoning too, so that a model that thinks first says something."""
        return "".join(text_of(choice.get("delta")) for choice in self.choices)

    @property
    def finish_reasons(self) -> list[str]:
        return [reason for choice in self.choices if (reason := text(choice.get("finish_reason")))]

    @property
    def error(self) -> Any:
        """An error that came as an event."""
        return next((chunk["error"] for chunk in self.chunks if chunk.get("error") is not None), None)

    @property
    def is_whole(self) -> bool:
        return self.is_done and bool(self.finish_reasons) and self.error is None

    def end(self) -> str:
        """How it ended, in words."""
        if self.error is not None:
            message = text(at(self.error, "message")) or text(self.error) or json.dumps(self.error)
            return f"an error event: {message[:160]}"
        reasons = ", ".join(self.finish_reasons) or "no finish_reason"
        return f"{len(self.text)} characters, {reasons}, {'[DONE]' if self.is_done else 'no [DONE]'}"


def read_stream(body: bytes) -> Stream:
    """Never raises: what is not as it should be stands in `odd`."""
    found = Stream()
    for event in EventParser().feed(body):
        if found.is_done:
            found.after_done += 1
        elif event.strip() == DONE:
            found.is_done = True
        else:
            try:
                parsed = json.loads(event)
            except (ValueError, RecursionError):
                parsed = None
            if isinstance(parsed, dict):
                found.chunks.append(parsed)
            else:
                found.odd.append(event)
    return found


def text_of(message: Any) -> str:
    """Of a message or a delta."""
    parts = (text(at(message, name)) for name in ("reasoning_content", "reasoning", "content"))
    return "".join(part for part in parts if part)


@asynccontextmanager
async def open_stream(target: Target, body: dict[str, Any], route: str = CHAT) -> AsyncIterator[Talk]:
    """A request that is being answered. Raises OSError or TimeoutError where there is no connection."""
    data = msgspec.json.encode({**body, "stream": True})
    headers = target.keyed({"Content-Type": "application/json"})
    async with talk(target.origin, timeout_s=target.patience.reply_s) as conversation:
        await conversation.write(request_of(target.origin, "POST", target.path(route), headers, data))
        yield conversation


async def first_text(conversation: Talk, timeout_s: float) -> bool:
    """Whether some came before the stream was over."""
    try:
        async with asyncio.timeout(timeout_s):
            await conversation.wait(lambda reply: has_text(reply) or reply.status >= 400)
    except TimeoutError:
        return False
    return has_text(conversation.snapshot())


def has_text(reply: Reply) -> bool:
    return bool(read_stream(reply.body).text)


async def to_end(conversation: Talk, timeout_s: float) -> Reply:
    """The whole reply; its fault says so where the time was up."""
    try:
        async with asyncio.timeout(timeout_s):
            await conversation.wait()
    except TimeoutError:
        conversation.reply.fault = f"nothing more in {timeout_s:g} s"
    return conversation.snapshot()
