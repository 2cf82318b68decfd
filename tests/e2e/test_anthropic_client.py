"""The official `anthropic` client, and Ollama's for its tools, against a server with Qwen2.5-Coder-0.5B."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import pytest

from corral.config import EngineConfig
from corral.store.local_model import LocalModel
from corral.worker.process import WORKER_COMMAND
from tests.support.live_server import LiveServer, live_server
from tests.support.models import model_path

pytestmark = pytest.mark.e2e

NAME = "coder"
PARIS: Any = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
DESCRIPTION = "Get the current weather in a city."
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "get_weather", "description": DESCRIPTION, "input_schema": SCHEMA}
GREEDY: Any = {"temperature": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    local = LocalModel(NAME, model_path("qwen2.5-coder-0.5b"))
    with live_server(local, engine=EngineConfig(max_model_len=1024), command=WORKER_COMMAND) as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=300) as made:
        yield made


def ask(messages: Any = PARIS, **fields: Any) -> dict[str, Any]:
    return {"model": NAME, "max_tokens": 24, "messages": messages, "extra_body": GREEDY, **fields}


def text_of(reply: Any) -> str:
    return "".join(block.text for block in reply.content if block.type == "text")


def test_it_answers_the_same_streamed_and_not(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ask(system="Be brief."))
    assert "Paris" in text_of(whole)
    assert whole.stop_reason == "end_turn"
    with client.messages.stream(**ask(system="Be brief.")) as stream:
        final = stream.get_final_message()
    assert text_of(final) == text_of(whole)
    prompt = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) == prompt
    counted = client.messages.count_tokens(model=NAME, system="Be brief.", messages=PARIS)
    assert counted.input_tokens == prompt


def test_stop_sequences_and_limits(client: anthropic.Anthropic) -> None:
    stopped = client.messages.create(**ask(stop_sequences=["France"]))
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "France")
    assert "France" not in text_of(stopped)
    assert client.messages.create(**ask(max_tokens=2)).stop_reason == "max_tokens"
    # More than the context holds is what is left of it; this prompt leaves a little.
    long = [{"role": "user", "content": "horse " * 950}]
    assert client.messages.create(**ask(long, max_tokens=32_000)).stop_reason in (
        "end_turn",
        "model_context_window_exceeded",
    )
    with pytest.raises(anthropic.BadRequestError, match="the context holds 1024 tokens"):
        client.messages.create(**ask([{"role": "user", "content": "horse " * 1500}]))


def test_an_answer_goes_on_from_its_beginning(client: anthropic.Anthropic) -> None:
    begun = [*PARIS, {"role": "assistant", "content": "The capital of France is the city of"}]
    assert text_of(client.messages.create(**ask(begun, max_tokens=4))).lstrip().startswith("Paris")


@pytest.mark.parametrize("stream", [False, True])
def test_it_calls_a_tool_and_reads_its_result(client: anthropic.Anthropic, stream: bool) -> None:
    fields = ask(WEATHER, tools=[TOOL], max_tokens=64)
    if stream:
        with client.messages.stream(**fields) as events:
            reply: Any = events.get_final_message()
    else:
        reply = client.messages.create(**fields)
    assert reply.stop_reason == "tool_use"
    [use] = [block for block in reply.content if block.type == "tool_use"]
    assert use.name == "get_weather"
    assert "Paris" in use.input["city"]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "It is 21 degrees and sunny."}
    # So small a model calls again and again unless it is told to go on.
    told_to = [result, {"type": "text", "text": "Now tell me in one sentence."}]
    turns = [*WEATHER, {"role": "assistant", "content": reply.content}, {"role": "user", "content": told_to}]
    told = client.messages.create(**ask(turns, tools=[TOOL], max_tokens=48))
    assert "21" in text_of(told)


def test_ollamas_client_calls_it_too(server: LiveServer) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}}
    client = ollama.Client(server.url, timeout=300)
    options: Any = {"temperature": 0, "num_predict": 64}
    reply = client.chat(NAME, WEATHER, tools=[tool], options=options)
    client._client.close()
    [call] = reply.message.tool_calls or []
    assert call.function.name == "get_weather"
    assert "Paris" in call.function.arguments["city"]


def test_a_call_can_be_required(client: anthropic.Anthropic) -> None:
    choice: Any = {"type": "any", "disable_parallel_tool_use": True}
    reply = client.messages.create(**ask(PARIS, tools=[TOOL], tool_choice=choice, max_tokens=64))
    assert [block.name for block in reply.content if block.type == "tool_use"] == ["get_weather"]
    assert reply.stop_reason == "tool_use"


def test_answers_keep_to_a_schema(server: LiveServer, client: anthropic.Anthropic) -> None:
    schema = {**SCHEMA, "additionalProperties": False}
    form = {"format": {"type": "json_schema", "schema": schema}}
    reply = client.messages.create(**ask(max_tokens=48, extra_body={**GREEDY, "output_config": form}))
    assert list(json.loads(text_of(reply))) == ["city"]
    native = ollama.Client(server.url, timeout=300)
    options: Any = {"temperature": 0, "num_predict": 48}
    told = native.chat(NAME, PARIS, format=schema, options=options).message.content or ""
    assert list(json.loads(told)) == ["city"]
    written = native.generate(NAME, "An object, please.", format="json", options=options).response or ""
    assert isinstance(json.loads(written), dict)
    native._client.close()
