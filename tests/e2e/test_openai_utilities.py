"""Embeddings, scores, rankings and tokens of real models, by the official client where it knows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from corral.config import EngineConfig
from corral.store.local_model import LocalModel
from corral.worker.process import WORKER_COMMAND
from tests.support.live_server import LiveServer, error_of, live_server
from tests.support.minilm import minilm_path
from tests.support.models import model_path

pytestmark = pytest.mark.e2e

HORSE, PONY, TAX = "A horse runs in the field", "The pony gallops over a meadow", "Income tax is due"
PARIS = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    models = LocalModel("minilm", minilm_path()), LocalModel("smollm2", model_path("smollm2-135m"))
    with live_server(*models, engine=EngineConfig(max_model_len=256), command=WORKER_COMMAND) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=300) as made:
        yield made


def post(server: LiveServer, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=300)


def test_embeddings(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="minilm", input=[HORSE, PONY, TAX])
    plain = client.embeddings.create(model="minilm", input=[HORSE, PONY, TAX], encoding_format="float")
    horse, pony, tax = (np.array(entry.embedding) for entry in packed.data)
    np.testing.assert_allclose(horse, plain.data[0].embedding, rtol=1e-6)
    assert np.linalg.norm(horse) == pytest.approx(1, abs=1e-5)
    assert horse @ pony > 0.5 > 0.2 > horse @ tax
    short = client.embeddings.create(model="minilm", input=HORSE, dimensions=64).data[0].embedding
    assert len(short) == 64
    assert np.linalg.norm(short) == pytest.approx(1, abs=1e-5)


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(client: openai.OpenAI) -> None:
    long = "horse " * 2000
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="minilm", input=long)
    assert caught.value.code == "context_length_exceeded"
    for size in (-1, 16):
        extra = {"truncate_prompt_tokens": size}
        reply = client.embeddings.create(model="minilm", input=long, extra_body=extra)
        assert reply.usage.prompt_tokens == (256 if size == -1 else size)


def test_scores_are_the_cosines_of_embeddings(server: LiveServer, client: openai.OpenAI) -> None:
    data = client.embeddings.create(model="minilm", input=[HORSE, PONY, TAX]).data
    horse, pony, tax = (np.array(entry.embedding) for entry in data)
    reply = post(server, "/v1/score", model="minilm", queries=HORSE, documents=[PONY, TAX]).json()
    scores = [entry["score"] for entry in reply["data"]]
    assert scores == pytest.approx([horse @ pony, horse @ tax], abs=1e-5)
    ranked = post(server, "/v2/rerank", model="minilm", query=HORSE, documents=[TAX, PONY, HORSE]).json()["results"]
    assert [entry["index"] for entry in ranked] == [2, 1, 0]
    assert ranked[0]["relevance_score"] == pytest.approx(1, abs=1e-5)


def test_tokens_of_a_text_there_and_back(server: LiveServer) -> None:
    text = "Zürich, naïve 🐎 and <|im_end|>"
    told = post(server, "/tokenize", model="smollm2", prompt=text, return_token_strs=True).json()
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == 256
    assert post(server, "/detokenize", model="smollm2", tokens=told["tokens"]).json()["prompt"] == text
    wrong = post(server, "/detokenize", model="smollm2", tokens=[10**6])
    assert (wrong.status_code, error_of(wrong)["param"]) == (400, "tokens")


def test_a_chats_tokens_are_those_that_an_answer_counts(server: LiveServer, client: openai.OpenAI) -> None:
    messages: Any = PARIS
    usage = client.chat.completions.create(model="smollm2", messages=messages, max_tokens=1).usage
    assert usage is not None
    told = post(server, "/tokenize", model="smollm2", messages=PARIS).json()
    rendered = post(server, "/v1/chat/completions/render", model="smollm2", messages=PARIS).json()
    assert told["count"] == usage.prompt_tokens
    assert told["tokens"] == rendered["token_ids"]
    assert rendered["prompt"].endswith("<|im_start|>assistant\n")


def test_a_prompt_longer_than_the_context_has_tokens_too(server: LiveServer) -> None:
    assert post(server, "/tokenize", model="smollm2", prompt="horse " * 5000).json()["count"] > 5000
    messages = [{"role": "user", "content": "horse " * 5000}]
    assert post(server, "/v1/chat/completions/render", model="smollm2", messages=messages).status_code == 200
    assert post(server, "/tokenize", model="smollm2", prompt="").json()["tokens"] == []


@pytest.mark.parametrize("kwargs", [{"tokenize": True}, {"messages": []}, {"add_generation_prompt": [1] * 1000}])
def test_a_template_is_told_only_what_it_asks_for(server: LiveServer, kwargs: Any) -> None:
    refused = post(server, "/tokenize", model="smollm2", messages=PARIS, chat_template_kwargs=kwargs)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "chat_template_kwargs")


def test_the_last_turn_may_be_left_out_or_open(server: LiveServer) -> None:
    def told(**fields: Any) -> str:
        messages = [*PARIS, {"role": "assistant", "content": "It is"}]
        tokens = post(server, "/tokenize", model="smollm2", messages=messages, **fields).json()
        strings: list[str] = post(
            server, "/tokenize", model="smollm2", messages=messages, return_token_strs=True, **fields
        ).json()["token_strs"]
        assert tokens["count"] == len(strings)
        return "".join(strings)

    assert told().endswith("It is<|im_end|>\n<|im_start|>assistant\n")
    assert told(add_generation_prompt=False).endswith("It is<|im_end|>\n")
    assert told(continue_final_message=True).endswith("It is")
