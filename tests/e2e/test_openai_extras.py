"""What OpenAI's clients may ask for besides text, of real models: log-probabilities, echo, ids, gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from corral.config import EngineConfig
from corral.store.local_model import LocalModel
from corral.worker.process import WORKER_COMMAND
from tests.support.live_server import LiveServer, live_server
from tests.support.models import model_path

pytestmark = pytest.mark.e2e

NAME = "smollm2"
CODER = "coder"
PARIS: Any = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    models = (
        LocalModel(NAME, model_path("smollm2-135m")),
        LocalModel(CODER, model_path("qwen2.5-coder-0.5b")),
    )
    engine = EngineConfig(max_model_len=1024, kv_cache_bytes=256 << 20)
    with live_server(*models, engine=engine, command=WORKER_COMMAND) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=300) as made:
        yield made


def test_logprobs_of_a_chat_are_those_of_its_tokens(client: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "messages": PARIS, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    fields["max_tokens"] = 6
    whole = client.chat.completions.create(**fields).choices[0]
    assert whole.logprobs is not None
    tokens = whole.logprobs.content
    assert tokens is not None
    assert len(tokens) == 6
    assert b"".join(bytes(token.bytes or ()) for token in tokens).decode() == whole.message.content
    for token in tokens:
        assert token.logprob <= 0.0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token  # greedy
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.0 + 1e-6
    streamed = [
        token
        for chunk in client.chat.completions.create(**fields, stream=True)
        for choice in chunk.choices
        if choice.logprobs is not None
        for token in choice.logprobs.content or []
    ]
    assert [token.token for token in streamed] == [token.token for token in tokens]


def test_echo_scores_the_prompt_and_writes_nothing(client: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "temperature": 0, "max_tokens": 0, "echo": True, "logprobs": 1}
    reply = client.completions.create(prompt=PROMPT, **fields)
    [choice] = reply.choices
    assert choice.text == PROMPT
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 0
    scores = choice.logprobs
    assert scores is not None
    assert scores.tokens is not None
    assert scores.token_logprobs is not None
    assert scores.text_offset is not None
    assert "".join(scores.tokens) == PROMPT
    assert len(scores.tokens) == reply.usage.prompt_tokens
    assert scores.token_logprobs[0] is None
    assert all(value <= 0 for value in scores.token_logprobs[1:])
    for token, offset in zip(scores.tokens, scores.text_offset, strict=True):
        assert PROMPT[offset:].startswith(token)
    # The same ids score the same, and so they do in a stream.
    extra = {"extra_body": {"return_token_ids": True}}
    ids = client.completions.create(prompt=PROMPT, model=NAME, max_tokens=1, **extra).choices[0].prompt_token_ids  # type: ignore[call-overload]
    by_ids = client.completions.create(prompt=ids, **fields).choices[0]
    assert by_ids.text == PROMPT
    assert by_ids.logprobs is not None
    assert by_ids.logprobs.token_logprobs == scores.token_logprobs
    chunks = list(client.completions.create(prompt=PROMPT, stream=True, **fields))
    assert "".join(chunk.choices[0].text for chunk in chunks) == PROMPT
    assert chunks[0].choices[0].logprobs is not None
    assert chunks[0].choices[0].logprobs.token_logprobs == scores.token_logprobs


def test_echo_goes_on_into_the_answer(client: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "prompt": PROMPT, "temperature": 0, "max_tokens": 4, "echo": True, "logprobs": 0}
    choice = client.completions.create(**fields).choices[0]
    assert choice.logprobs is not None
    assert choice.text.startswith(PROMPT + " Paris")
    assert "".join(choice.logprobs.tokens or []) == choice.text
    parts = list(client.completions.create(**fields, stream=True))
    offsets = [at for part in parts if part.choices[0].logprobs for at in part.choices[0].logprobs.text_offset or []]
    assert offsets == choice.logprobs.text_offset


def test_prompt_logprobs_in_vllms_form(client: openai.OpenAI) -> None:
    extra = {"prompt_logprobs": 2, "return_token_ids": True}
    reply: Any = client.chat.completions.create(model=NAME, messages=PARIS, max_tokens=2, extra_body=extra)
    first, *rest = reply.prompt_logprobs
    assert first is None
    assert len(rest) + 1 == len(reply.prompt_token_ids) == reply.usage.prompt_tokens
    for token_id, entry in zip(reply.prompt_token_ids[1:], rest, strict=True):
        assert entry[str(token_id)]["logprob"] <= 0
        assert 2 <= len(entry) <= 3
    assert len(reply.choices[0].token_ids) == reply.usage.completion_tokens


def test_the_coder_fills_a_gap(client: openai.OpenAI) -> None:
    prompt, suffix = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
    fields: Any = {"prompt": prompt, "suffix": suffix, "temperature": 0, "max_tokens": 12, "stop": ["\n"]}
    assert client.completions.create(model=CODER, **fields).choices[0].text.strip() == "a + b"
    with pytest.raises(openai.BadRequestError, match="does not support insert") as caught:
        client.completions.create(model=NAME, **fields)
    assert caught.value.param == "suffix"


def test_an_effort_of_a_model_that_does_not_think_is_told(client: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "messages": PARIS, "max_tokens": 2}
    for stream in (False, True):
        raw = client.chat.completions.with_raw_response.create(**fields, reasoning_effort="low", stream=stream)
        assert raw.headers["x-corral-ignored"] == "reasoning_effort"
        raw.http_response.read()
    raw = client.chat.completions.with_raw_response.create(**fields, reasoning_effort="none")
    assert "x-corral-ignored" not in raw.headers


def test_only_allowed_tokens_and_no_bad_words(client: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "prompt": PROMPT, "temperature": 0, "max_tokens": 3}
    reply: Any = client.completions.create(**fields, extra_body={"allowed_token_ids": [500], "return_token_ids": True})
    assert set(reply.choices[0].token_ids) == {500}
    assert "Paris" in client.completions.create(**fields).choices[0].text
    assert "Paris" not in client.completions.create(**fields, extra_body={"bad_words": [" Paris"]}).choices[0].text
