"""A client that streams chats and notes when their tokens come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from benchmarks.workloads import Message

DONE = "[DONE]"
MAX_ERROR = 300  # characters of a server's refusal that are kept


class EventParser:
    """Server-sent events out of bytes, however the network cuts them."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that `chunk` completes; comments and other fields are skipped."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for line in (line.removesuffix(b"\r").decode() for line in lines):
            if not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
            elif line.startswith("data:"):
                self._data.append(line.removeprefix("data:").removeprefix(" "))
        return events


@dataclass
class Answer:
    """One streamed answer; times are of time.perf_counter().

    Args:
        scheduled: when the request was due, which is before it was sent if the client was late.
        content_times: when each chunk with text came.
        prompt_tokens, answer_tokens: as the server's usage says.
        error: why the answer does not count.
    """

    scheduled: float
    content_times: list[float] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    error: str | None = None

    def take(self, event: str, now: float) -> None:
        """Notes one event. Raises ValueError if it is no chat chunk, or an error of the server."""
        payload = json.loads(event)
        if not isinstance(payload, dict) or "error" in payload:
            raise ValueError(f"the server sent {event[:MAX_ERROR]}")
        if any((choice.get("delta") or {}).get("content") for choice in payload.get("choices") or ()):
            self.content_times.append(now)
        if usage := payload.get("usage"):
            self.prompt_tokens, self.answer_tokens = usage["prompt_tokens"], usage["completion_tokens"]

    def check(self, wanted_tokens: int, *, is_done: bool) -> None:
        """Sets `error` unless the answer is whole and has exactly so many tokens."""
        if not is_done:
            self.error = f"the stream ended without {DONE}"
        elif self.answer_tokens != wanted_tokens:
            self.error = f"{self.answer_tokens} tokens came, {wanted_tokens} were asked for"
        elif not self.content_times:
            self.error = "no chunk had text"


async def stream_chat(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any], wanted_tokens: int, scheduled: float
) -> Answer:
    """One chat; whatever goes wrong stands in its `error`."""
    answer, parser, is_done = Answer(scheduled), EventParser(), False
    try:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"status {response.status_code}: {(await response.aread()).decode()[:MAX_ERROR]}")
            async for chunk in response.aiter_bytes():
                now = time.perf_counter()
                for event in parser.feed(chunk):
                    if event == DONE:
                        is_done = True
                    else:
                        answer.take(event, now)
        answer.check(wanted_tokens, is_done=is_done)
    except (httpx.HTTPError, ValueError, KeyError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    answer.ended = time.perf_counter()
    return answer


def chat_body(model: str, chat: Sequence[Message], num_tokens: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Greedy, streamed, with usage; `extra` is how the server is told not to stop early."""
    return {
        "model": model,
        "messages": list(chat),
        "max_tokens": num_tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **extra,
    }


async def stream_all(
    url: str, bodies: Sequence[Mapping[str, Any]], wanted_tokens: int, patience: float
) -> list[Answer]:
    """All chats at once, each on a connection of its own; every one is due at the same moment.

    Args:
        patience: seconds that a server may send nothing.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=patience, limits=limits, trust_env=False) as client:
        scheduled = time.perf_counter()
        return await asyncio.gather(*(stream_chat(client, url, body, wanted_tokens, scheduled) for body in bodies))
