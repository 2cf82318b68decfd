"""What probes tell, and what becomes of requests while a server is about to stop; the process itself: test_run.py."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import httpx
import pytest

from corral.errors import ServerDraining
from corral.server.lifecycle import HEALTH_PATHS, LIVE_PATH, PROBE_PATHS, READY_PATHS, Lifecycle
from corral.server.model_manager import ModelManager
from corral.server.store_jobs import StoreJobs
from corral.store.status import OnStatus, Status
from tests.support.live_server import LiveServer, chat_body, error_of, live_server


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with live_server() as running:
        yield running


def probe(server: LiveServer, path: str = "/ready") -> tuple[int, str]:
    response = httpx.get(server.url + path)
    return response.status_code, response.json()["status"]


def test_probes_of_a_server_that_serves(server: LiveServer) -> None:
    assert {"/health", "/healthz", "/ping", "/ready", "/readyz", "/livez"} == PROBE_PATHS
    for path in PROBE_PATHS:
        assert probe(server, path) == (200, "ok")
        assert httpx.head(server.url + path).status_code == 200
    assert httpx.post(f"{server.url}/ping").json() == {"status": "ok"}


def test_while_models_load_none_but_the_process_is_there(server: LiveServer) -> None:
    server.lifecycle.is_loading = True
    for path in (*HEALTH_PATHS, *READY_PATHS):
        assert probe(server, path) == (503, "loading")
    assert probe(server, LIVE_PATH) == (200, "ok")


def test_a_worker_that_is_stuck_makes_the_server_not_ready() -> None:
    with live_server(step_timeout_s=2.0) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=server.base_url, timeout=60))
        asking = stack.enter_context(client.stream("POST", "/chat/completions", json=chat_body("hang", stream=True)))
        assert asking.status_code == 200

        async def until_stalled() -> None:
            async with asyncio.timeout(30):
                while not server.manager.stalled():
                    await server.first_stats()

        server.run(until_stalled)
        ready = httpx.get(f"{server.url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "stalled")
        assert "1 model has work" in ready.json()["reason"]
        assert "scripted" not in ready.text  # anybody may ask
        for path in (*HEALTH_PATHS, LIVE_PATH):
            assert probe(server, path) == (200, "ok")  # it mends that itself: no reason to restart it


def test_a_pinned_model_is_lost_when_it_dies_again_and_again(server: LiveServer) -> None:
    async def lost_after(num_deaths: int) -> list[str]:
        [slot] = server.manager._workers._slots.values()
        client, slot.client, slot.num_deaths = slot.client, None, num_deaths
        found = server.manager.lost()
        slot.client, slot.num_deaths = client, 0
        return found

    assert server.run(lambda: lost_after(1)) == []
    assert server.run(lambda: lost_after(2)) == ["scripted"]
    assert server.manager.lost() == []


def test_a_lost_model_makes_the_server_not_ready(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelManager, "lost", lambda _: ["a", "b"])
    assert (probe(server), probe(server, "/health")) == ((503, "lost"), (200, "ok"))


def test_who_is_about_to_stop_says_so_first_and_still_serves(server: LiveServer) -> None:
    completions = f"{server.base_url}/chat/completions"
    with httpx.Client() as client:
        assert "connection" not in client.post(completions, json=chat_body("one")).headers
        server.loop.call_soon_threadsafe(server.lifecycle.stop)
        # The connection from before takes one more request, and is ended by its answer.
        answer = client.post(completions, json=chat_body("two"))
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    for path in (*HEALTH_PATHS, *READY_PATHS):
        assert probe(server, path) == (503, "draining")
    assert probe(server, LIVE_PATH) == (200, "ok")

    server.run(lambda: server.lifecycle.take_leave(0.0))
    refused = httpx.post(completions, json=chat_body("three"))
    assert (refused.status_code, error_of(refused)["code"]) == (503, "server_draining")
    assert int(refused.headers["retry-after"]) > 0
    assert httpx.post(f"{server.url}/ping").json()["status"] == "draining"
    assert httpx.get(f"{server.base_url}/models").status_code == 200


async def test_a_second_signal_ends_the_time_in_which_requests_are_taken() -> None:
    lifecycle = Lifecycle()
    lifecycle.stop()
    leaving = asyncio.ensure_future(lifecycle.take_leave(3600.0))
    await asyncio.sleep(0)
    assert not lifecycle.is_refusing
    lifecycle.stop()
    await leaving
    assert lifecycle.is_refusing


async def test_transfers_end_with_a_word_on_how_to_go_on_and_other_jobs_go_on() -> None:
    may_end, is_abandoned = threading.Event(), threading.Event()

    def pull(on_status: OnStatus) -> None:
        try:
            while True:
                on_status(Status("pulling"))
        finally:
            is_abandoned.set()

    lifecycle, jobs = Lifecycle(), StoreJobs()
    lifecycle.on_refuse.append(jobs.interrupt)
    transfer = jobs.start(pull, is_transfer=True)
    other = jobs.start(lambda _: may_end.wait(60))
    statuses = transfer.statuses()
    assert (await anext(statuses)).status == "pulling"
    await lifecycle.take_leave(0.0)
    with pytest.raises(ServerDraining, match="go on from there"):
        [_ async for _ in statuses]
    assert await asyncio.to_thread(is_abandoned.wait, 60)
    may_end.set()
    assert await other.result() is True
