"""OpenAI's Responses API with real models: SmolLM2-135M says something, Qwen2.5-Coder-0.5B calls a function."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from corral.config import EngineConfig
from corral.store.local_model import LocalModel
from corral.worker.process import WORKER_COMMAND
from tests.support.live_server import live_server
from tests.support.models import model_path
from tests.support.responses_api import EVENTS, TOOL

pytestmark = pytest.mark.e2e

PARIS = "What is the capital of France? Answer in one sentence."


@pytest.fixture(params=["smollm2-135m"])
def client(request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    local = LocalModel("model", model_path(request.param))
    with (
        live_server(local, engine=EngineConfig(max_model_len=2048), command=WORKER_COMMAND) as server,
        openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=300) as made,
    ):
        yield made


def ask(client: openai.OpenAI, given: Any, **fields: Any) -> Any:
    fields = {"model": "model", "temperature": 0, "max_output_tokens": 32, "store": False, **fields}
    return client.responses.create(input=given, **fields)


def test_it_answers_and_streams_the_same(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    reply = ask(client, PARIS, **fields)
    assert "Paris" in reply.output_text
    assert reply.usage.output_tokens >= len(reply.output[0].content[0].logprobs) > 0
    events = list(ask(client, PARIS, stream=True, **fields))
    for event in events:
        EVENTS.validate_json(event.model_dump_json())
    assert events[-1].response.output_text == reply.output_text
    assert ask(client, PARIS, max_output_tokens=2).status == "incomplete"


@pytest.mark.parametrize("client", ["qwen2.5-coder-0.5b"], indirect=True)
def test_a_function_is_called(client: openai.OpenAI) -> None:
    turns: list[Any] = [{"role": "user", "content": "What is the weather in Rome? Use the tool."}]
    reply = ask(client, turns, tools=[TOOL], tool_choice="required", max_output_tokens=64)
    [call] = [item for item in reply.output if item.type == "function_call"][:1]
    assert (call.name, list(json.loads(call.arguments))) == ("weather", ["city"])
    turns += [*reply.output, {"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 31 degrees"}]
    assert "31" in ask(client, turns, tools=[TOOL], tool_choice="none").output_text
