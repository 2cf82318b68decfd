"""Embeddings, scores and rankings over a real socket; vectors are [words, characters]."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.support.live_server import LiveServer, error_of

TEXTS = ["one two", "three"]


def post(server: LiveServer, path: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json={"model": "echo", **fields}, timeout=60)


def test_the_official_client_asks_for_base64_and_gets_floats(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model="echo", input=TEXTS)
    assert [entry.embedding for entry in reply.data] == [[2.0, 7.0], [1.0, 5.0]]
    assert [entry.index for entry in reply.data] == [0, 1]
    assert (reply.model, reply.usage.prompt_tokens, reply.usage.total_tokens) == ("scripted", 3, 3)


def test_the_official_client_may_ask_for_floats_too(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model="echo", input=[[1, 2], [3]], encoding_format="float", user="u")
    assert [entry.embedding for entry in reply.data] == [[2.0, 3.0], [1.0, 1.0]]


def test_refusals(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context length") as caught:
        client.embeddings.create(model="echo", input="too long")
    assert caught.value.param == "input"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="gpt-9", input="a")
    with pytest.raises(openai.BadRequestError, match="dimensions is 0"):
        client.embeddings.create(model="echo", input="a", dimensions=0)


def test_many_inputs(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model="echo", input=["word"] * 5000)
    assert len(reply.data) == 5000


def test_nobody_waits_for_an_answer_that_nobody_reads(server: LiveServer) -> None:
    for path, fields in (("/v1/embeddings", {"input": "forever"}), ("/score", {"text_1": "forever", "text_2": "a"})):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}{path}", json={"model": "echo", **fields}, timeout=0.2)
        server.wait_until(lambda stats: stats.num_requests == 0)


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_scores(server: LiveServer, path: str) -> None:
    reply = post(server, path, text_1="a b", text_2=TEXTS).json()
    assert [entry["index"] for entry in reply["data"]] == [0, 1]
    assert all(-1 <= entry["score"] <= 1 for entry in reply["data"])
    assert (reply["model"], reply["usage"]["total_tokens"]) == ("scripted", 5)
    refused = post(server, path, text_1=["a", "b", "c"], text_2=TEXTS)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "text_1")


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rankings(server: LiveServer, path: str) -> None:
    reply = post(server, path, query="a b", documents=[{"text": "one two"}, "three"], top_n=1).json()
    [entry] = reply["results"]
    assert entry["document"]["text"] == ("one two", "three")[entry["index"]]
    refused = post(server, path, query="a", documents=[])
    assert (refused.status_code, error_of(refused)["param"]) == (400, "documents")
    assert post(server, path, query="too long", documents=["a"]).status_code == 400
