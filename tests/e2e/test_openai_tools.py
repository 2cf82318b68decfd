"""Qwen2.5-Coder calls a tool, asked by the official `openai` client."""

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

pytestmark = pytest.mark.e2e

NAME = "coder"
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
ASKED: Any = [{"role": "user", "content": "What is the weather in Rome? Use the tool."}]
SCHEMA: Any = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "inhabitants": {"type": "integer", "maximum": 9999999},
    },
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "town", "schema": SCHEMA, "strict": True}}


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    local = LocalModel(NAME, model_path("qwen2.5-coder-0.5b"))
    with (
        live_server(local, engine=EngineConfig(max_model_len=1024), command=WORKER_COMMAND) as server,
        openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=300) as made,
    ):
        yield made


@pytest.mark.parametrize(("choice", "ends"), [("auto", "tool_calls"), ("required", "tool_calls"), (NAMED, "stop")])
def test_it_calls_the_tool(client: openai.OpenAI, choice: Any, ends: str) -> None:
    fields: Any = {"model": NAME, "messages": ASKED, "tools": TOOLS, "tool_choice": choice, "temperature": 0}
    whole = client.chat.completions.create(**fields, max_tokens=64).choices[0]
    assert whole.message.tool_calls is not None
    [call] = whole.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "Rome" in json.loads(call.function.arguments)["city"]
    assert whole.finish_reason == ends
    name, arguments, ids = "", "", []
    reason = None
    for chunk in client.chat.completions.create(**fields, max_tokens=64, stream=True):
        reason = chunk.choices[0].finish_reason or reason
        for delta in chunk.choices[0].delta.tool_calls or []:
            assert delta.function is not None
            ids += [delta.id] if delta.id else []
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
    assert (name, json.loads(arguments)) == ("get_weather", json.loads(call.function.arguments))
    assert len(ids) == 1
    assert reason == ends


def test_it_goes_on_with_the_result(client: openai.OpenAI) -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages: Any = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "31 degrees and sunny"},
    ]
    reply = client.chat.completions.create(model=NAME, messages=messages, temperature=0, max_tokens=40)
    assert reply.choices[0].message.tool_calls is None
    assert "31" in (reply.choices[0].message.content or "")


def test_answers_keep_to_a_schema(client: openai.OpenAI) -> None:
    import jsonschema

    fields: Any = {"model": NAME, "max_tokens": 80, "response_format": FORMAT}
    fields["messages"] = [{"role": "user", "content": "Tell me of Rome, as JSON."}]
    reply = client.chat.completions.create(**fields, n=2, seed=3, temperature=1.0)
    for choice in reply.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)
    text = ""
    for chunk in client.chat.completions.create(**fields, temperature=0, stream=True):
        text += chunk.choices[0].delta.content or ""
    jsonschema.validate(json.loads(text), SCHEMA)


def test_vllms_names(client: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "messages": ASKED, "temperature": 0, "max_tokens": 16}
    for extra in ({"structured_outputs": {"choice": ["rain", "sun"]}}, {"guided_regex": "rain|sun"}):
        reply = client.chat.completions.create(**fields, extra_body=extra)
        assert reply.choices[0].message.content in ("rain", "sun")
