"""A real model behind a real server: clients that vanish, floods and hostile bodies, while others go on undisturbed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from corral.config import EngineConfig
from corral.store.local_model import LocalModel
from corral.worker.process import WORKER_COMMAND
from tests.support.live_server import LiveServer, connect, error_of, live_server, raw_request, read_to_end
from tests.support.models import model_path

pytestmark = pytest.mark.e2e

NAME = "smollm2"


def model() -> LocalModel:
    return LocalModel(NAME, model_path("smollm2-135m"))


def engine(**settings: Any) -> EngineConfig:
    return EngineConfig(max_model_len=2048, **settings)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(model(), engine=engine(), command=WORKER_COMMAND, max_body_bytes=1 << 20) as running:
        yield running


def body(words: str = "Count from 1 to 1000.", **fields: Any) -> dict[str, Any]:
    return {"model": NAME, "messages": [{"role": "user", "content": words}], "temperature": 0, **fields}


def ask(server: LiveServer, words: str, **fields: Any) -> str:
    url = f"{server.base_url}/chat/completions"
    reply = httpx.post(url, json=body(words, max_tokens=24, **fields), timeout=300)
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def test_200_vanishing_clients_leave_no_block_taken(server: LiveServer) -> None:
    undisturbed = ask(server, "What is the capital of France?")
    endless = json.dumps(body(stream=True, ignore_eos=True, max_tokens=1500))
    sockets = [connect(server) for _ in range(200)]
    for number, sock in enumerate(sockets):
        sock.sendall(raw_request(server, endless))
        if number % 3 == 0:  # some go before the first token, some with a reset, some half-way
            sock.close()
    server.wait_until(lambda stats: stats.num_running > 0 and stats.generated_tokens > 100, timeout_s=300)
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(ask, server, "What is the capital of France?")
        for number, sock in enumerate(sockets):
            if number % 3 == 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            sock.close()
        assert staying.result() == undisturbed
    stats = server.wait_until(lambda stats: stats.num_used_blocks == 0, timeout_s=120)
    assert (stats.num_requests, stats.num_running, stats.num_waiting) == (0, 0, 0)


def test_vanishing_without_a_stream_counts_too(server: LiveServer) -> None:
    before = server.stats().num_steps
    sockets = [connect(server) for _ in range(8)]
    for sock in sockets:
        sock.sendall(raw_request(server, json.dumps(body(n=3, ignore_eos=True, max_tokens=1500))))
    server.wait_until(lambda stats: stats.num_running >= 24, timeout_s=120)
    for sock in sockets:
        sock.close()
    stats = server.wait_until(lambda stats: stats.num_used_blocks == 0, timeout_s=120)
    assert stats.num_steps - before < 1500


HOSTILE: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"\xff\xfe", 400),
    (b"[" * 900_000, 400),
    (b'{"model": "smollm2", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    (b'{"model": "smollm2", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400),
    (json.dumps(body(temperature="hot")).encode(), 400),
    (json.dumps(body(n=10**9)).encode(), 400),
    (json.dumps(body(max_tokens=-1)).encode(), 400),
    (json.dumps(body(top_p=0)).encode(), 400),
    (json.dumps(body(seed=2**70)).encode(), 400),
    (json.dumps(body(stop="")).encode(), 400),
    (json.dumps(body(stop=["x" * 500_000])).encode(), 400),
    (json.dumps(body(logit_bias={"-1": 5})).encode(), 400),
    (json.dumps(body("horse " * 150_000)).encode(), 400),
    (json.dumps({**body(), "messages": []}).encode(), 400),
    (json.dumps({**body(), "model": "other"}).encode(), 404),
    (b'{"model": "' + b"x" * (2 << 20) + b'"}', 413),
]


def test_hostile_bodies_disturb_nobody(server: LiveServer) -> None:
    undisturbed = ask(server, "Name three colours.")
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, server, "Name three colours.") for _ in range(8)]
        for content, status in HOSTILE:
            headers = {"Content-Type": "application/json"}
            response = httpx.post(f"{server.base_url}/chat/completions", content=content, headers=headers, timeout=60)
            assert response.status_code == status, content[:100]
            assert error_of(response)["message"]
        with connect(server) as sock:
            sock.sendall(raw_request(server, json.dumps(body(stream=True)))[:-10])
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
        assert {answer.result() for answer in answers} == {undisturbed}
    prompts: tuple[Any, ...] = ("", [], [[]], [10**9])
    for prompt in prompts:
        response = httpx.post(f"{server.base_url}/completions", json={"model": NAME, "prompt": prompt})
        assert response.status_code == 400
    server.wait_until(lambda stats: stats.num_used_blocks == 0)


def test_a_full_queue_is_503_with_retry_after() -> None:
    with (
        live_server(model(), engine=engine(max_num_seqs=1, max_queue=2), command=WORKER_COMMAND) as small,
        openai.OpenAI(base_url=small.base_url, api_key="none", max_retries=0) as client,
    ):
        messages: Any = [{"role": "user", "content": "Count from 1 to 1000."}]
        endless: Any = {"model": NAME, "messages": messages, "max_tokens": 1500, "extra_body": {"ignore_eos": True}}
        streams = [client.chat.completions.create(stream=True, **endless) for _ in range(3)]
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(stream=stream, **endless)
            assert (caught.value.status_code, caught.value.code) == (503, "queue_full")
            assert int(caught.value.response.headers["retry-after"]) >= 1
        for stream in streams:
            stream.close()
        small.wait_until(lambda stats: stats.num_requests == 0)
        assert ask(small, "Hello")
