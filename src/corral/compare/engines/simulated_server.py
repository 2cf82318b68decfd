"""A server without a model, whose delays are known: it shows what a client reads where the truth is known.

python -m corral.compare.engines.simulated_server --port 8000 --ttft 0.1 --gap 0.02 --slots 4
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
MODEL = "simulated"
_TEMPLATE_TOKENS = 8  # what it says that its chat template adds


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the server does.

    Args:
        ttft_s: from when a request has a slot to its first text.
        gap_s: between pieces of text.
        slots: requests at once; more wait.
        num_tokens: of an answer; None gives what max_tokens asks for.
        tokens_per_chunk: as servers that step several tokens at once have it.
        has_role_chunk: a first chunk with a role and no text comes at once.
        reasoning_tokens: the first of them come as reasoning_content.
        fail_every: each so-many-th request is refused with 500; 0 refuses none.
        error_after: an error event comes after so many tokens.
        cut_after: the connection is cut after so many tokens.
        has_done, has_usage: the stream ends with [DONE]; tells its usage.
        newline: that ends a line of the stream.
    """

    ttft_s: float = 0.05
    gap_s: float = 0.02
    slots: int = 64
    num_tokens: int | None = None
    tokens_per_chunk: int = 1
    has_role_chunk: bool = True
    reasoning_tokens: int = 0
    fail_every: int = 0
    error_after: int | None = None
    cut_after: int | None = None
    has_done: bool = True
    has_usage: bool = True
    newline: str = "\n"


@dataclass(slots=True)
class Served:
    """One request as the server saw it; times are of time.perf_counter()."""

    body: dict[str, Any]
    headers: dict[str, str]
    came: float
    written: list[float] = field(default_factory=list)  # when it wrote each piece of text


class SimulatedServer:
    """OpenAI's chat and completions, /v1/models and /health. `served` has every request that it was asked."""

    def __init__(self, behaviour: Behaviour = Behaviour(), model: str = MODEL) -> None:
        self.behaviour, self.model = behaviour, model
        self.served: list[Served] = []
        self._slots = asyncio.Semaphore(behaviour.slots)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> str:
        """Its address."""
        self._server = await asyncio.start_server(self._accept, HOST, port)
        return f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
                await self._request(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for line in lines[1:-2] for name, _, value in [line.partition(": ")]}
        method, path, _ = lines[0].split(" ", 2)
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET" and path == "/health":
            _whole(writer, 200, {})
        elif method == "GET" and path == "/v1/models":
            _whole(writer, 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif method == "POST" and path in ("/v1/chat/completions", "/v1/completions"):
            served = Served(json.loads(content), headers, time.perf_counter())
            self.served.append(served)
            await self._answer(served, writer, is_chat="chat" in path)
        else:
            _whole(writer, 404, {"error": {"message": f"no route {path}"}})

    async def _answer(self, served: Served, writer: asyncio.StreamWriter, *, is_chat: bool) -> None:
        how, body = self.behaviour, served.body
        if how.fail_every and len(self.served) % how.fail_every == 0:
            _whole(writer, 500, {"error": {"message": "simulated failure"}})
            return
        num_tokens = body.get("max_tokens", 16) if how.num_tokens is None else how.num_tokens
        is_streamed = bool(body.get("stream"))
        if is_streamed:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            if is_chat and how.has_role_chunk:
                self._event(writer, _chunk({"role": "assistant", "content": ""}))
        async with self._slots:
            due = time.perf_counter() + how.ttft_s
            for first in range(0, num_tokens, how.tokens_per_chunk):
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += how.gap_s
                if how.cut_after is not None and first >= how.cut_after:
                    writer.transport.abort()
                    return
                if how.error_after is not None and first >= how.error_after:
                    self._event(writer, {"error": {"message": "simulated failure in the middle", "code": 500}})
                    return
                if is_streamed:
                    words = " word" * min(how.tokens_per_chunk, num_tokens - first)
                    self._event(writer, _piece(words, is_chat, is_reasoning=first < how.reasoning_tokens))
                    served.written.append(time.perf_counter())
                    await writer.drain()
        asked_all = num_tokens >= body.get("max_tokens", 16)
        usage = _usage(body, num_tokens)
        if not is_streamed:
            message = {"message": {"role": "assistant", "content": " word" * num_tokens}}
            text = message if is_chat else {"text": " word" * num_tokens}
            choice = {"index": 0, "finish_reason": "length" if asked_all else "stop", **text}
            _whole(writer, 200, {"choices": [choice], **({"usage": usage} if how.has_usage else {})})
            return
        self._event(writer, _chunk({}, finish_reason="length" if asked_all else "stop"))
        if how.has_usage and (body.get("stream_options") or {}).get("include_usage"):
            self._event(writer, {"choices": [], "usage": usage})
        if how.has_done:
            self._write(writer, f"data: [DONE]{how.newline * 2}")
        writer.write(b"0\r\n\r\n")

    def _event(self, writer: asyncio.StreamWriter, payload: dict[str, Any]) -> None:
        self._write(writer, f"data: {json.dumps(payload)}{self.behaviour.newline * 2}")

    def _write(self, writer: asyncio.StreamWriter, text: str) -> None:
        data = text.encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {
        "object": "chat.completion.chunk",
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }


def _piece(text: str, is_chat: bool, *, is_reasoning: bool) -> dict[str, Any]:
    if not is_chat:
        return {"choices": [{"index": 0, "text": text, "finish_reason": None}]}
    return _chunk({"reasoning_content" if is_reasoning else "content": text})


def _usage(body: dict[str, Any], num_tokens: int) -> dict[str, int]:
    said = [body["prompt"]] if "prompt" in body else [message["content"] for message in body["messages"]]
    prompt = sum(len(str(text).split()) for text in said) + _TEMPLATE_TOKENS  # a list of parts is some words too
    return {"prompt_tokens": prompt, "completion_tokens": num_tokens, "total_tokens": prompt + num_tokens}


def _whole(writer: asyncio.StreamWriter, status: int, payload: dict[str, Any]) -> None:
    data = json.dumps(payload).encode()
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)


async def _serve(server: SimulatedServer, port: int, on_ready: Callable[[str], None]) -> None:
    on_ready(await server.start(port))
    await asyncio.Event().wait()


def _say(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--ttft", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("--gap", type=float, default=0.02, metavar="SECONDS")
    parser.add_argument("--slots", type=int, default=64)
    given = parser.parse_args(argv)

    async def run() -> None:
        behaviour = Behaviour(ttft_s=given.ttft, gap_s=given.gap, slots=given.slots)
        await _serve(SimulatedServer(behaviour, given.model), given.port, _say)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


if __name__ == "__main__":
    main()
