"""One id for a request: in every protocol's headers and errors, as their own clients read it, and in the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from corral.server.exchange import http_id_of
from corral.store.local_model import LocalModel
from tests.support.anthropic_api import written_server
from tests.support.live_server import LiveServer, chat_body
from tests.support.logged import logged

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
MINE = "mine-7f"
TINY = LocalModel("tiny:latest", Path("tiny.gguf"))
SENT = {"X-Request-Id": MINE}


@pytest.fixture
def claude(server: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


@contextmanager
def ollama_client(url: str) -> Iterator[ollama.Client]:
    client = ollama.Client(url, headers=SENT)
    try:
        yield client
    finally:
        client._client.close()


def message(content: str, **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "max_tokens": 99, "messages": [{"role": "user", "content": content}], **fields}


def test_openais_client_knows_it(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**chat_body("hello"), extra_headers=SENT)
    assert reply._request_id == MINE
    reply = client.chat.completions.create(**chat_body("hello"))
    assert reply._request_id is not None
    assert reply._request_id.startswith("req_")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**chat_body("hello", model="none"), extra_headers=SENT)
    assert caught.value.request_id == MINE
    assert MINE not in caught.value.message  # the log has no more to say of it


def test_anthropics_client_knows_it(claude: anthropic.Anthropic) -> None:
    reply = claude.messages.create(**message("hello"), extra_headers=SENT)
    assert reply._request_id == MINE
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(**message("hello", model="none"), extra_headers=SENT)
    assert caught.value.request_id == MINE
    assert caught.value.response.headers["x-request-id"] == MINE
    assert caught.value.response.json()["request_id"] == MINE
    assert claude.models.list(extra_headers=SENT)._request_id == MINE


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_the_server_names_it(
    server: LiveServer, client: openai.OpenAI, claude: anthropic.Anthropic, stream: bool
) -> None:
    with pytest.raises(openai.InternalServerError, match=rf"\(request {MINE}\)"):
        client.chat.completions.create(**chat_body("crash", stream=stream), extra_headers=SENT)
    with pytest.raises(openai.InternalServerError, match=rf"\(request {MINE}\)"):
        client.completions.create(model="echo", prompt="crash", stream=stream, extra_headers=SENT)
    with pytest.raises(openai.InternalServerError, match=rf"\(request {MINE}\)"):
        client.responses.create(model="echo", input="crash", stream=stream, extra_headers=SENT)
    with pytest.raises(anthropic.InternalServerError, match=rf"\(request {MINE}\)") as caught:
        claude.messages.create(**message("crash", stream=stream), extra_headers=SENT)
    assert caught.value.request_id == MINE
    asked: Any = {"model": "echo", "messages": [{"role": "user", "content": "crash"}], "stream": stream}
    with ollama_client(server.url) as own, pytest.raises(ollama.ResponseError, match=rf"\(request {MINE}\)"):
        list(own.chat(**asked))


def test_an_error_within_a_stream_names_it(tmp_path: Path) -> None:
    """The status line was sent long before."""
    with (
        written_server(tmp_path, TINY) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as claude,
        ollama_client(server.url) as own,
    ):
        asked: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "dies later or so"}]}
        with pytest.raises(openai.APIError, match=rf"\(request {MINE}\)"):
            list(client.chat.completions.create(**asked, stream=True, extra_headers=SENT))
        with pytest.raises(openai.APIError, match=rf"\(request {MINE}\)"):
            list(client.completions.create(model="tiny", prompt="dies later or so", stream=True, extra_headers=SENT))
        *_, last = client.responses.create(model="tiny", input="dies later or so", stream=True, extra_headers=SENT)
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert last.response.error.message.endswith(f"(request {MINE})")
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(claude.messages.create(**asked, max_tokens=9, stream=True, extra_headers=SENT))
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["request_id"] == MINE
        assert MINE in caught.value.body["error"]["message"]
        with pytest.raises(ollama.ResponseError, match=rf"\(request {MINE}\)"):
            list(own.chat(**asked, stream=True))


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/responses", "/api/chat"])
def test_what_nobody_has_foreseen(path: str, tmp_path: Path) -> None:
    """An error that is none of ours: said in the log with its stack, answered in the API's own form."""
    asked = {"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "crash"}], "stream": False}
    if path == "/v1/responses":
        asked = {"model": "tiny", "input": "crash"}
    elif path == "/api/chat":
        asked.pop("max_tokens")
    with logged() as log, written_server(tmp_path, TINY) as server:
        response = httpx.post(server.url + path, json=asked, headers=SENT, timeout=60)
    assert (response.status_code, response.headers["x-request-id"]) == (500, MINE)
    assert f"(request {MINE})" in response.text
    assert set(response.json()) == ({"type", "error", "request_id"} if path == MESSAGES else {"error"})
    [line] = [line for line in log.lines if "exception" in line]
    assert (line["request_id"], line["level"]) == (MINE, "error")
    assert line["exception"].endswith("ZeroDivisionError")
    [line] = log.of("corral.access")
    assert (line["status"], line["cause"], line["request_id"]) == (500, "internal_error", MINE)


@pytest.mark.parametrize("given", ["a b", "x" * 129, "ü", ""])
def test_what_is_no_id_is_replaced(server: LiveServer, given: str) -> None:
    headers = [(b"X-Request-Id", given.encode())]
    told = httpx.get(f"{server.url}/v1/models", headers=headers).headers["x-request-id"]
    assert told.startswith("req_")
    assert given not in told or not given


def test_ids_of_ended_requests_are_forgotten(server: LiveServer, client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**chat_body("hello"), extra_headers=SENT)
    client.models.list()
    assert http_id_of(reply.id) == reply.id
