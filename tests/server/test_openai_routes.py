"""The official client against the real server; only the model is scripted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.support.live_server import LiveServer, chat_body, error_of


def messages(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="scripted", messages=messages("one two"), n=2)
    assert [choice.message.content for choice in reply.choices] == ["ONE TWO"] * 2
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert {choice.finish_reason for choice in reply.choices} == {"stop"}
    assert reply.model == "scripted"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (2, 4, 6)


def test_chat_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="scripted", messages=messages("a b c"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "A B C"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6
    assert len({chunk.id for chunk in chunks}) == 1


def test_max_tokens_ends_with_length(client: openai.OpenAI) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        fields: Any = {field: 2}
        reply = client.chat.completions.create(model="scripted", messages=messages("a b c"), **fields)
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("A B", "length")


def test_completions_with_several_prompts(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="scripted", prompt=["a b", "c"], n=2, echo=True)
    assert [(c.index, c.text) for c in reply.choices] == [(0, "a bA B"), (1, "a bA B"), (2, "cC"), (3, "cC")]
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 6)


def test_completions_stream_with_several_prompts(client: openai.OpenAI) -> None:
    stream = client.completions.create(model="scripted", prompt=[[1, 2], [3]], n=2, stream=True)
    texts = ["", "", "", ""]
    ended = []
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
        if chunk.choices[0].finish_reason:
            ended.append(chunk.choices[0].index)
    assert texts == ["1 2", "1 2", "3", "3"]
    assert sorted(ended) == [0, 1, 2, 3]


def test_models_and_alias(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("scripted", "model", "corral")
    assert model.model_extra == {"root": "scripted", "parent": None, "max_model_len": 4096}
    assert client.models.retrieve("echo").id == "scripted"
    assert client.chat.completions.create(model="echo", messages=messages("hi")).model == "scripted"


def test_unknown_models_are_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'gpt-9' not found") as caught:
        client.chat.completions.create(model="gpt-9", messages=messages("hi"))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "error", "status", "code"),
    [
        ("too long", openai.BadRequestError, 400, "context_length_exceeded"),
        ("full", openai.InternalServerError, 503, "queue_full"),
        ("crash", openai.InternalServerError, 500, "internal_error"),
    ],
)
def test_refusals_are_statuses_in_streams_too(
    client: openai.OpenAI, script: str, error: type[openai.APIStatusError], status: int, code: str, stream: bool
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(model="scripted", messages=messages(script), stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    if code == "queue_full":
        assert caught.value.response.headers["retry-after"] == "7"


def test_one_refused_prompt_refuses_the_call(server: LiveServer, client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError):
            client.completions.create(model="scripted", prompt=["forever", "full"], stream=stream)
    server.wait_until(lambda stats: stats.num_used_blocks == 0)


def test_64_clients_at_once(client: openai.OpenAI) -> None:
    def ask(number: int) -> str:
        text = f"client {number} says hello"
        if number % 2:
            reply = client.chat.completions.create(model="scripted", messages=messages(text))
            return reply.choices[0].message.content or ""
        stream = client.chat.completions.create(model="scripted", messages=messages(text), stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(64)))
    assert answers == [f"CLIENT {number} SAYS HELLO" for number in range(64)]


def test_stream_framing(server: LiveServer) -> None:
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=chat_body("a", stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize("number", range(3))
def test_odd_text_survives(client: openai.OpenAI, number: int) -> None:
    text = ["naïve\u2028café", "\U0001f600\u200d\U0001f525", "\x00\x1b[0m\\"][number]
    reply = client.chat.completions.create(model="scripted", messages=messages(text))
    assert reply.choices[0].message.content == " ".join(text.upper().split())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
def test_wrong_paths_and_methods(server: LiveServer, method: str, path: str, status: int, code: str) -> None:
    response = httpx.request(method, server.url + path)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert status != 405 or response.headers["allow"]


def test_health(server: LiveServer) -> None:
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    assert httpx.head(f"{server.url}/health").status_code == 200
