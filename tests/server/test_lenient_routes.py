"""A lenient server leaves unknown fields of every strict route out, and says so; values that it knows stay checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.live_server import LiveServer, live_server


@pytest.fixture(scope="module")
def lenient() -> Iterator[LiveServer]:
    with live_server(lenient=True) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a"}),
        ("/score", {"text_1": "a", "text_2": "b"}),
        ("/rerank", {"query": "a", "documents": ["b"]}),
        ("/tokenize", {"prompt": "a"}),
        ("/detokenize", {"tokens": [1]}),
        ("/v1/chat/completions/render", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/completions/render", {"prompt": "a"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 5}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/responses", {"input": "a", "store": False}),
    ],
)
def test_unknown_fields_are_told(lenient: LiveServer, server: LiveServer, path: str, body: dict[str, Any]) -> None:
    asked = {"model": "echo", "colour": "red", **body}
    reply = httpx.post(lenient.url + path, json=asked)
    assert (reply.status_code, reply.headers.get("x-corral-ignored")) == (200, "colour")
    assert httpx.post(server.url + path, json=asked).status_code == 400
    known = httpx.post(lenient.url + path, json={"model": "echo", **body})
    assert "x-corral-ignored" not in known.headers
    assert httpx.post(lenient.url + path, json={**asked, "model": 5}).status_code == 400
