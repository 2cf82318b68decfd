"""Unknown fields: refused by name, or left out and told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.live_server import LiveServer, chat_body, error_of, live_server

UNKNOWN: dict[str, Any] = {"temprature": 1, "stream_options": {"include_usge": True}, "stream": True}


@pytest.fixture(scope="module")
def lenient() -> Iterator[LiveServer]:
    with live_server(lenient=True) as running:
        yield running


def post(server: LiveServer, path: str = "chat/completions", **body: Any) -> httpx.Response:
    return httpx.post(f"{server.base_url}/{path}", json=body, timeout=60)


def test_a_strict_server_refuses(server: LiveServer) -> None:
    reply = post(server, **chat_body(temprature=1))
    assert (reply.status_code, error_of(reply)["param"]) == (400, "temprature")
    reply = post(server, **chat_body(stream=True, stream_options={"include_usge": True}))
    assert error_of(reply)["message"].endswith("did you mean include_usage?")


def test_a_lenient_server_tells(lenient: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    reply = post(lenient, **chat_body("one", **UNKNOWN))
    assert reply.status_code == 200
    assert reply.headers["x-corral-ignored"] == "temprature, stream_options.include_usge"
    assert "temprature, stream_options.include_usge" in caplog.text
    reply = post(lenient, "completions", model="scripted", prompt="one", frob={"a": 1})
    assert (reply.status_code, reply.headers["x-corral-ignored"]) == (200, "frob")
    assert "x-corral-ignored" not in post(lenient, **chat_body("one")).headers


def test_within_messages_too(lenient: LiveServer) -> None:
    body: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "one", "mood": "fine"}]}
    assert post(lenient, **body).headers["x-corral-ignored"] == "messages[0].mood"


def test_what_is_known_is_still_checked(lenient: LiveServer) -> None:
    assert error_of(post(lenient, **chat_body(temperature="hot")))["param"] == "temperature"
    assert error_of(post(lenient, **chat_body(verbosity="low")))["param"] == "verbosity"


def test_names_are_fit_for_a_header(lenient: LiveServer) -> None:
    names = ["a\r\nSet-Cookie: x=1", "na\u00efve", "x" * 5000, *(f"field{i}" for i in range(500))]
    reply = post(lenient, **chat_body("one", **dict.fromkeys(names, 1)))
    assert reply.status_code == 200
    assert "set-cookie" not in reply.headers
    told = reply.headers["x-corral-ignored"]
    assert told.startswith("a??Set-Cookie: x=1, na?ve, xxx")
    assert told.endswith("and 471 more")
    assert len(told) < 4000
