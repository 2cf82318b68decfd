"""X-Request-Timeout and --request-timeout: work that nobody will wait for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from corral.config import ServerConfig
from corral.errors import DeadlineExceeded, InvalidRequest, TenantQueueFull
from corral.protocol.anthropic.errors import anthropic_error
from corral.protocol.ollama.errors import ollama_error
from corral.protocol.openai.errors import reply_to
from corral.server.caller import Caller
from corral.server.deadlines import before, parse_timeout
from corral.server.exchange import Exchange
from corral.server.model_manager import ModelManager
from corral.server.model_names import NamedModels
from corral.store.local_model import LocalModel
from tests.support.live_server import LiveServer, live_server
from tests.support.scripted_models import ScriptedProbe, read_scripted_needs
from tests.support.scripted_worker import COMMAND

SOON = {"X-Request-Timeout": "100ms"}
HOLD: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hold"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as running:
        yield running


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("500ms", 0.5), ("2s", 2.0), ("1.5m", 90.0), ("1h", 3600.0), (" 7 ", 7.0)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0ms", "-1", "1e3", "inf", "nan", "5 s", "5d", "٣", "1" * 20, "1,5", "1.s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidRequest, match="X-Request-Timeout is") as caught:
        parse_timeout(text)
    assert caught.value.param == "X-Request-Timeout"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/health"])
def test_a_bad_time_is_refused_in_the_words_of_the_path(server: LiveServer, path: str) -> None:
    reply = httpx.request(
        "GET" if path == "/health" else "POST", server.url + path, headers={"X-Request-Timeout": "5x"}
    )
    assert reply.status_code == 400
    assert "X-Request-Timeout is '5x'" in reply.text
    error = reply.json()["error"]
    assert isinstance(error, str) == path.startswith("/api")


def test_an_answer_that_is_not_there_in_time_is_504(server: LiveServer) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**HOLD, extra_headers=SOON)
        assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client_a:
        with pytest.raises(anthropic.InternalServerError) as caught_a:
            client_a.messages.create(**HOLD, max_tokens=9, extra_headers=SOON)
        assert caught_a.value.status_code == 504
        assert caught_a.value.body["error"]["type"] == "timeout_error"  # type: ignore[index]
    client_o = ollama.Client(host=server.url, headers=SOON)
    with pytest.raises(ollama.ResponseError) as caught_o:
        client_o.chat(**HOLD)
    client_o._client.close()
    assert caught_o.value.status_code == 504
    server.wait_until(lambda stats: stats.num_requests == 0)


def test_a_stream_that_has_begun_ends_with_an_error(server: LiveServer) -> None:
    body = {**HOLD, "stream": True}
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, headers=SOON, timeout=60) as reply:
        assert reply.status_code == 200
        events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
    assert events[-1]["error"]["code"] == "deadline_exceeded"
    with httpx.stream("POST", f"{server.url}/api/chat", json=body, headers=SOON, timeout=60) as reply:
        lines = [json.loads(line) for line in reply.iter_lines()]
    assert "error" in lines[-1]
    server.wait_until(lambda stats: stats.num_requests == 0)


def test_who_has_time_is_answered(server: LiveServer) -> None:
    body = {**HOLD, "messages": [{"role": "user", "content": "a b"}]}
    reply = httpx.post(f"{server.base_url}/chat/completions", json=body, headers={"X-Request-Timeout": "5m"})
    assert reply.json()["choices"][0]["message"]["content"] == "A B"


def test_the_servers_own_limit_can_only_be_shortened() -> None:
    with live_server(request_timeout_s=0.1) as server:
        for headers in ({}, {"X-Request-Timeout": "1h"}):
            reply = httpx.post(f"{server.base_url}/chat/completions", json=HOLD, headers=headers, timeout=60)
            assert reply.status_code == 504


async def test_waits_end_at_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        async with before(time.monotonic() + 0.01):
            await asyncio.Event().wait()
    async with before(None), before(time.monotonic() + 100):
        pass
    with pytest.raises(TimeoutError):
        async with before(time.monotonic() + 100):
            raise TimeoutError("of something else")


def make_manager(*models: LocalModel, **config: Any) -> ModelManager:
    return ModelManager(
        NamedModels(models),
        config=ServerConfig(**config),
        command=COMMAND,
        read_needs=read_scripted_needs,
        probe=ScriptedProbe(),
    )


async def test_the_wait_for_a_model_ends_at_the_deadline() -> None:
    endless = LocalModel("endless", Path("endless.gguf"))
    manager = make_manager(endless)
    try:
        with pytest.raises(DeadlineExceeded):
            async with manager.lease(endless, Exchange(deadline=time.monotonic() + 0.05)):
                pytest.fail("it never loads")
        assert manager.num_pending == 0
    finally:
        await manager.close()


async def test_one_key_leaves_room_in_the_line_for_models() -> None:
    endless = LocalModel("endless", Path("endless.gguf"))
    manager = make_manager(endless, max_pending=4)

    async def wait_as(owner: str) -> None:
        async with manager.lease(endless, Exchange(caller=Caller(owner=owner))):
            pytest.fail("it never loads")

    try:
        waiting = [asyncio.ensure_future(wait_as("a")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TenantQueueFull):
            await wait_as("a")
        waiting.append(asyncio.ensure_future(wait_as("b")))
        await asyncio.sleep(0)
        assert manager.num_pending == 3
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert not manager._num_pending_of
    finally:
        await manager.close()


def test_refusals_have_their_status_in_every_protocol() -> None:
    from corral.errors import QueueFull, WaitTooLong

    errors = [QueueFull("q", retry_after_s=3), TenantQueueFull("t", retry_after_s=3), WaitTooLong("w", retry_after_s=3)]
    assert [reply_to(error).status for error in errors] == [503, 429, 503]
    assert [reply_to(error).code for error in errors] == ["queue_full", "key_queue_full", "wait_too_long"]
    assert [ollama_error(error).status for error in errors] == [503, 429, 503]
    assert [anthropic_error(error, "req_1").status for error in errors] == [529, 429, 529]
    for error in errors:
        for reply in (reply_to(error), ollama_error(error), anthropic_error(error, "req_1")):
            assert reply.headers["Retry-After"] == "3"
    assert [reply.status for reply in map(reply_to, [DeadlineExceeded("d")])] == [504]
