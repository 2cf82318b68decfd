"""Clients that leave, and clients that wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect

from corral.server.streaming import EventStream, unless_disconnected
from tests.support.live_server import LiveServer, chat_body, connect, raw_request


class Client:
    """The other side of an ASGI response."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.gone = asyncio.Event()
        self.got = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.sent.append(message["body"])
            self.got.set()


async def test_events_go_out_in_order_and_empty_ones_do_not() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        for event in (b"a", b"", b"b"):
            yield event

    client = Client()
    await EventStream(events())({"type": "http"}, client.receive, client.send)
    assert client.sent == [b"a", b"b", b""]


async def test_a_gone_client_ends_the_generator_at_once() -> None:
    ended = asyncio.Event()

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            yield b"a"
            await asyncio.Event().wait()
        finally:
            ended.set()

    client = Client()
    sending = asyncio.ensure_future(EventStream(events())({"type": "http"}, client.receive, client.send))
    await client.got.wait()
    client.gone.set()
    await asyncio.wait_for(sending, 20)
    assert ended.is_set()


async def test_a_client_that_does_not_read_can_still_leave() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"a"

    client = Client()
    stuck = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    sending = asyncio.ensure_future(EventStream(events())({"type": "http"}, client.receive, send))
    await stuck.wait()
    client.gone.set()
    await asyncio.wait_for(sending, 20)


async def test_silence_is_filled_with_comments() -> None:
    client = Client()

    async def events() -> AsyncGenerator[bytes, None]:
        while len(client.sent) < 3:
            client.got.clear()
            await client.got.wait()
        yield b"data: late\n\n"

    await EventStream(events(), keep_alive_s=0.001)({"type": "http"}, client.receive, client.send)
    assert client.sent[:3] == [b": keep-alive\n\n"] * 3
    assert client.sent[-2:] == [b"data: late\n\n", b""]


async def test_errors_of_the_generator_are_not_swallowed() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise ZeroDivisionError

    client = Client()
    with pytest.raises(ZeroDivisionError):
        await EventStream(events())({"type": "http"}, client.receive, client.send)


async def test_work_is_cancelled_when_nobody_waits_for_it() -> None:
    client = Client()
    cancelled = asyncio.Event()
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    waiting = asyncio.ensure_future(unless_disconnected(client.receive, work()))
    await started.wait()
    client.gone.set()
    with pytest.raises(ClientDisconnect):
        await waiting
    assert cancelled.is_set()


async def test_work_that_ends_first_gives_its_result_or_its_error() -> None:
    async def work(fails: bool) -> int:
        return 1 // (not fails)

    client = Client()
    assert await unless_disconnected(client.receive, work(fails=False)) == 1
    with pytest.raises(ZeroDivisionError):
        await unless_disconnected(client.receive, work(fails=True))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", pytest.param("/v1/completions", marks=pytest.mark.slow)])
def test_200_vanishing_clients_leave_nothing(server: LiveServer, stream: bool, path: str) -> None:
    body: dict[str, Any] = chat_body("forever", stream=stream)
    if path == "/v1/completions":
        body = {"model": "scripted", "prompt": ["forever", "forever"], "max_tokens": 9, "stream": stream}
    per_client = 2 if path == "/v1/completions" else 1
    with ExitStack() as stack:
        sockets = [stack.enter_context(connect(server)) for _ in range(200)]
        for sock in sockets:
            sock.sendall(raw_request(server, json.dumps(body), path))
        server.wait_until(lambda stats: stats.num_used_blocks == 200 * per_client)
        url, held = f"{server.base_url}/chat/completions", chat_body("hold", stream=True)
        with httpx.stream("POST", url, json=held, timeout=60) as response:
            lines = response.iter_lines()
            while "held" not in next(lines):
                continue
            for sock in sockets:
                sock.close()
            server.wait_until(lambda stats: stats.num_used_blocks == 1)
            assert httpx.post(url, json=chat_body("release"), timeout=60).status_code == 200
            assert "RELEASED" in "".join(lines)
    server.wait_until(lambda stats: stats.num_used_blocks == 0)
