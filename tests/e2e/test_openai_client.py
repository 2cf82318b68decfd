"""The official `openai` client against a server with a real model: SmolLM2-135M."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
PARIS: Any = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    local = LocalModel(NAME, model_path("smollm2-135m"))
    engine = EngineConfig(max_model_len=2048)
    with live_server(local, aliases={"small": local}, engine=engine, command=WORKER_COMMAND) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=300) as made:
        yield made


@pytest.fixture(autouse=True)
def no_block_stays_taken(server: LiveServer) -> Iterator[None]:
    yield
    server.wait_until(lambda stats: stats.num_used_blocks == 0 and stats.num_requests == 0)


def chat(client: openai.OpenAI, messages: Any = PARIS, **fields: Any) -> Any:
    fields = {"model": NAME, "temperature": 0, "max_tokens": 24, **fields}
    return client.chat.completions.create(messages=messages, **fields)


def text(reply: Any, index: int = 0) -> str:
    return reply.choices[index].message.content or ""


def streamed(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_it_answers(client: openai.OpenAI) -> None:
    reply = chat(client)
    assert "Paris" in text(reply)
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens > 10
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_streamed_and_whole_answers_are_equal(client: openai.OpenAI) -> None:
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert streamed(chunks) == text(whole)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len(chunks) > 5


def test_a_repeated_prompt_comes_from_the_cache(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Tell me about horses and corrals. " * 20}]
    chat(client, messages)
    again = chat(client, messages).usage
    assert again.prompt_tokens_details.cached_tokens > again.prompt_tokens // 2


def test_n_seed_and_temperature(client: openai.OpenAI) -> None:
    def ask(seed: int) -> list[str]:
        reply = chat(client, n=4, seed=seed, temperature=1.0)
        assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
        return [text(reply, index) for index in range(4)]

    assert ask(7) == ask(7)
    assert ask(7) != ask(8)
    assert len(set(ask(7))) > 1
    greedy = chat(client, n=3)
    assert len({text(greedy, index) for index in range(3)}) == 1


def test_stop_strings_end_the_answer_and_do_not_show(client: openai.OpenAI) -> None:
    whole = text(chat(client))
    stop = whole[whole.index("Paris") + 1 : whole.index("Paris") + 4]
    for stream in (False, True):
        reply = chat(client, stop=[stop, "never said"], stream=stream)
        answer = streamed(reply) if stream else text(reply)
        assert answer == whole[: whole.index(stop)]


def test_length_limits(client: openai.OpenAI) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        reply = chat(client, **{"max_tokens": None, field: 3})
        assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (3, "length")


def test_logit_bias(client: openai.OpenAI) -> None:
    reply = chat(client, logit_bias={"1000": 100}, max_tokens=5)
    assert len(set(text(reply).split())) <= 1
    assert reply.usage.completion_tokens == 5


def test_extra_sampling_fields(client: openai.OpenAI) -> None:
    extra = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0, "min_tokens": 2, "ignore_eos": True}
    reply = chat(client, temperature=1.0, extra_body=extra, max_tokens=30)
    assert reply.usage.completion_tokens == 30
    assert text(reply).startswith(text(chat(client))[:10])


def test_completions(client: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "temperature": 0, "max_tokens": 8}
    reply = client.completions.create(prompt=["The capital of France is", "Two plus two is"], n=2, **fields)
    texts = [choice.text for choice in reply.choices]
    assert "Paris" in texts[0] == texts[1]
    assert texts[2] == texts[3]
    echoed = client.completions.create(prompt="The capital of France is", echo=True, **fields)
    assert echoed.choices[0].text == "The capital of France is" + texts[0]
    stream = client.completions.create(prompt=["The capital of France is", "Two plus two is"], stream=True, **fields)
    parts = ["", ""]
    for chunk in stream:
        parts[chunk.choices[0].index] += chunk.choices[0].text
    assert parts == [texts[0], texts[2]]
    assert client.completions.create(prompt=[5, 6, 7], **fields).usage.prompt_tokens == 3


def test_control_tokens_in_user_text_are_text(client: openai.OpenAI) -> None:
    plain = chat(client, [{"role": "user", "content": "hello"}], max_tokens=1).usage.prompt_tokens
    token = chat(client, [{"role": "user", "content": "hello<|im_end|>"}], max_tokens=1).usage.prompt_tokens
    assert token - plain > 1


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found"),
        (
            {"messages": [{"role": "user", "content": "horse " * 5000}]},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        ({"max_tokens": 5000}, openai.BadRequestError, "context_length_exceeded"),
        ({"temperature": -1}, openai.BadRequestError, None),
        ({"logit_bias": {"99999999": 1}}, openai.BadRequestError, None),
        ({"verbosity": "low"}, openai.BadRequestError, "unsupported_parameter"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "unknown_parameter"),
    ],
)
def test_refusals(
    client: openai.OpenAI, fields: dict[str, Any], error: type[openai.APIStatusError], code: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(error) as caught:
            chat(client, **{"messages": PARIS, "stream": stream, **fields})
        assert caught.value.code == code
        assert caught.value.body["message"]  # type: ignore[index]


def test_models(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert model.id == NAME
    assert model.model_extra == {"root": NAME, "parent": None, "max_model_len": 2048}
    assert chat(client, model="small", max_tokens=1).model == NAME


def test_64_clients_at_once_each_as_alone(server: LiveServer, client: openai.OpenAI) -> None:
    def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"Write one sentence about the number {number}."}]
        fields: Any = {"max_tokens": 16}
        if number % 4 == 1:
            fields |= {"temperature": 1.0, "seed": number}
        if number % 2:
            return text(chat(client, messages, **fields))
        return streamed(chat(client, messages, stream=True, **fields))

    alone = [ask(number) for number in range(24)]  # one after the other takes most of the time
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(ask, range(64)))
    assert together[: len(alone)] == alone
    assert all(together)
    assert len(set(together)) > 32
