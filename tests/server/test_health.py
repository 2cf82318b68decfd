"""Probes: what they say of a server that serves, that has a worker stuck, and that drains."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from corral.server.auth import PUBLIC_PATHS
from tests.support.live_server import LiveServer, chat_body, live_server

PROBES = ("/health", "/livez", "/ready", "/readyz")


def ask(server: LiveServer) -> dict[str, tuple[int, str]]:
    replies = {path: httpx.get(server.url + path) for path in PROBES}
    return {path: (reply.status_code, reply.json()["status"]) for path, reply in replies.items()}


def test_all_is_well(server: LiveServer) -> None:
    assert set(ask(server).values()) == {(200, "ok")}
    assert set(PROBES) < PUBLIC_PATHS


def test_a_worker_that_is_stuck_makes_it_not_ready() -> None:
    with live_server(step_timeout_s=2.0) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=server.base_url, timeout=60))
        asking = stack.enter_context(client.stream("POST", "/chat/completions", json=chat_body("hang", stream=True)))
        assert asking.status_code == 200

        async def until_stalled() -> None:
            async with asyncio.timeout(30):
                while not server.manager.stalled():
                    await server.first_stats()

        server.run(until_stalled)
        assert ask(server) == {
            "/health": (200, "ok"),
            "/livez": (200, "ok"),
            "/ready": (503, "stalled"),
            "/readyz": (503, "stalled"),
        }


@pytest.mark.parametrize("key", [None, "secret"])
def test_a_server_that_drains_says_so_and_lives(key: str | None) -> None:
    with live_server(api_keys=(key,) if key else ()) as server:
        server.loop.call_soon_threadsafe(server.lifecycle.stop)
        while httpx.get(f"{server.url}/health").status_code == 200:
            continue
        assert ask(server) == {path: (200, "ok") if path == "/livez" else (503, "draining") for path in PROBES}
