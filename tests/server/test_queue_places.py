"""What a client hears of the queue that it waits in: headers, and comment lines that no client takes for an event."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from corral.protocol.sse import place_comment, place_headers
from corral.request import Delta, QueuePlace, RequestOutput
from tests.support.live_server import LiveServer, live_server

WAIT: dict[str, Any] = {"model": "scripted", "stream": True}
CHAT = {**WAIT, "messages": [{"role": "user", "content": "wait"}]}
SSE_CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {**WAIT, "prompt": "wait"},
    "/v1/messages": {**CHAT, "max_tokens": 9},
    "/v1/responses": {**WAIT, "input": "wait", "store": False},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORRAL_HOME", str(tmp_path_factory.mktemp("home")))
        with live_server() as running:
            yield running


def release(server: LiveServer) -> None:
    body = {"model": "scripted", "prompt": "release"}
    assert httpx.post(f"{server.base_url}/completions", json=body).status_code == 200


def read_and_release(server: LiveServer, response: httpx.Response, awaited: bytes) -> bytes:
    """The whole body; what waits is released when `awaited` has come."""
    body, is_released = b"", False
    for piece in response.iter_raw():
        body += piece
        if awaited in body and not is_released:
            is_released = True
            release(server)
    return body


@pytest.mark.parametrize("path", SSE_CALLS)
def test_a_stream_tells_its_place_in_head_and_comments(server: LiveServer, path: str) -> None:
    with httpx.stream("POST", server.url + path, json=SSE_CALLS[path], timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["X-Corral-Queue-Position"] in ("3", "2"), "outputs that come together are joined"
        body = read_and_release(server, response, b": queue position=2")
    comments = [line for line in body.split(b"\n\n") if line.startswith(b": queue")]
    assert comments[-1] == b": queue position=2"
    assert comments[:-1] in ([], [b": queue position=3 wait=4.25s"])
    assert b"HELD" in body
    assert b"RELEASED" in body


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_lines_of_json_have_the_headers_alone(server: LiveServer, path: str) -> None:
    body = {**CHAT, "prompt": "wait"} if path == "/api/generate" else CHAT
    body.pop("messages") if path == "/api/generate" else None
    with httpx.stream("POST", server.url + path, json=body, timeout=60) as response:
        assert response.headers["X-Corral-Queue-Position"] in ("3", "2")
        release(server)
        lines = list(response.iter_lines())
    assert all(line.startswith("{") for line in lines)
    assert '"done":true' in lines[-1]


def test_who_does_not_wait_hears_nothing(server: LiveServer) -> None:
    body = {**CHAT, "messages": [{"role": "user", "content": "words"}]}
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=60) as response:
        assert not [name for name in response.headers if name.startswith("x-corral")]
        assert not [line for line in response.iter_lines() if line.startswith(":")]


def test_official_clients_read_past_comments(server: LiveServer) -> None:
    messages: Any = [{"role": "user", "content": "wait"}]
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=60) as client:
        stream = client.chat.completions.create(model="scripted", messages=messages, stream=True)
        release(server)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "HELD RELEASED"
    with (
        anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60) as client_a,
        client_a.messages.stream(model="scripted", max_tokens=9, messages=messages) as events,
    ):
        release(server)
        assert events.get_final_text() == "HELD RELEASED"
    client_o = ollama.Client(host=server.url, timeout=60)
    parts = client_o.chat(model="scripted", messages=messages, stream=True)
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(lambda: "".join(part["message"]["content"] for part in parts))
        server.wait_until(lambda stats: stats.num_requests == 1)
        release(server)
        assert text.result(60) == "HELD RELEASED"
    client_o._client.close()


def test_whole_answers_wait_as_well(server: LiveServer) -> None:
    body = {**CHAT, "stream": False}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, f"{server.base_url}/chat/completions", json=body, timeout=60)
        server.wait_until(lambda stats: stats.num_requests == 1)
        release(server)
        assert answer.result(60).json()["choices"][0]["message"]["content"] == "HELD RELEASED"


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (QueuePlace(0), b": queue position=0\n\n"),
        (QueuePlace(3, 4.2), b": queue position=3 wait=4.2s\n\n"),
        (QueuePlace(12, 120.0), b": queue position=12 wait=120s\n\n"),
    ],
)
def test_a_comment_is_one_line(place: QueuePlace, text: bytes) -> None:
    assert place_comment(place) == text


def test_a_call_of_several_requests_tells_of_the_last() -> None:
    outputs = [
        RequestOutput("a", place=QueuePlace(1, 2.0)),
        RequestOutput("b", place=QueuePlace(4, 8.5)),
        RequestOutput("c"),
        RequestOutput("d", (Delta(0, "x"),)),
    ]
    assert place_headers(outputs) == {"X-Corral-Queue-Position": "4", "X-Corral-Expected-Wait": "8.5"}
    assert place_headers(outputs[2:]) == {}
