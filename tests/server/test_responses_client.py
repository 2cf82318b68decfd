"""The official client against /v1/responses over a live app; only the model is scripted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pydantic
import pytest

from tests.support.live_server import error_of
from tests.support.responses_api import EVENTS, SCRIPTS, TOOL, ScriptedManager, responses_server


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, ScriptedManager]]:
    with responses_server(tmp_path / "corral.db") as served:
        yield served


@pytest.fixture
def client(served: tuple[str, ScriptedManager]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def ask(client: openai.OpenAI, given: Any = "hello there", **fields: Any) -> Any:
    return client.responses.create(model="scripted", input=given, **fields)


def test_an_answer(client: openai.OpenAI) -> None:
    reply = ask(client, instructions="Be brief.", temperature=0.5, metadata={"a": "b"})
    assert (reply.object, reply.status, reply.output_text) == ("response", "completed", "HELLO THERE ")
    assert reply.id.startswith("resp_")
    assert (reply.temperature, reply.metadata, reply.instructions) == (0.5, {"a": "b"}, "Be brief.")
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (3, 2, 5)
    assert reply.usage.input_tokens_details.cached_tokens == 1
    assert reply.error is None
    assert reply.incomplete_details is None


def test_the_end_of_the_tokens_is_told(client: openai.OpenAI) -> None:
    reply = ask(client, "a b c", max_output_tokens=2)
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (reply.output[0].status, reply.output_text) == ("incomplete", "A B ")


def test_reasoning(client: openai.OpenAI, served: tuple[str, ScriptedManager]) -> None:
    reply = ask(client, "reason", reasoning={"effort": "high", "summary": "auto"})
    thought, message = reply.output
    assert (thought.type, thought.content[0].text, thought.summary) == ("reasoning", "hm, so", [])
    assert (message.content[0].text, reply.usage.output_tokens_details.reasoning_tokens) == ("Yes.", 3)
    assert served[1].requests[0].think == "high"


def test_logprobs(client: openai.OpenAI) -> None:
    reply = ask(client, "logprobs", include=["message.output_text.logprobs"], top_logprobs=2)
    first, second = reply.output[0].content[0].logprobs
    assert (first.token, first.bytes, first.logprob) == ("He", [72, 101], -0.5)
    assert [top.logprob for top in first.top_logprobs] == [-0.5, -9999.0]
    assert second.top_logprobs == []


def test_a_function_is_called_and_its_output_answered(
    client: openai.OpenAI, served: tuple[str, ScriptedManager]
) -> None:
    reply = ask(client, "call", tools=[TOOL], tool_choice={"type": "function", "name": "weather"})
    [call] = reply.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Rome"})
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "it rains"}
    by_id = ask(client, [output], previous_response_id=reply.id, tools=[TOOL])
    by_hand = ask(client, [{"role": "user", "content": "call"}, *reply.output, output], tools=[TOOL])
    assert by_id.output_text == by_hand.output_text == "IT RAINS "
    first, second = served[1].requests[1:]
    assert first.messages == second.messages
    assert [message["role"] for message in first.messages or []] == ["user", "assistant", "tool"]


def test_calls_that_are_none_are_text(client: openai.OpenAI) -> None:
    assert ask(client, "broken call", tools=[TOOL]).output_text == '<call>{"city"</call>'
    cut = ask(client, "cut call", tools=[TOOL])
    assert (cut.status, cut.output_text, cut.output[0].type) == ("incomplete", 'weather{"city"', "message")
    assert [item.type for item in ask(client, "two calls", tools=[TOOL]).output] == [
        *("message", "function_call", "function_call")
    ]
    assert ask(client, "silence").output[0].content[0].text == ""


def test_parse(client: openai.OpenAI, served: tuple[str, ScriptedManager]) -> None:
    class Place(pydantic.BaseModel):
        city: str

    reply = client.responses.parse(model="scripted", input="json", text_format=Place)
    assert reply.output_parsed == Place(city="Rome")
    grammar = served[1].requests[0].grammar
    assert grammar is not None
    assert "city" in json.loads(grammar.source)["properties"]


@pytest.mark.parametrize("script", [*SCRIPTS, "hello there"])
def test_every_event_is_one_that_the_client_knows(served: tuple[str, ScriptedManager], script: str) -> None:
    body = {"model": "scripted", "input": script, "stream": True, "include": ["message.output_text.logprobs"]}
    response = httpx.post(f"{served[0]}/v1/responses", json=body)
    chunks = [chunk.splitlines() for chunk in response.text.split("\n\n") if chunk]
    events = [json.loads(data.removeprefix("data: ")) for _, data in chunks]
    assert [name.removeprefix("event: ") for name, _ in chunks] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_json(json.dumps(event), strict=False)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    final = events[-1]["response"]
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert added == [item["id"] for item in done]
    assert done == final["output"]
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    parts = [part["text"] for item in done if item["type"] == "message" for part in item["content"]]
    assert text == "".join(parts)
    assert httpx.get(f"{served[0]}/v1/responses/{final['id']}").json() == final


def test_stream_helper(client: openai.OpenAI) -> None:
    tools: Any = [TOOL]
    with client.responses.stream(model="scripted", input="two calls", tools=tools) as stream:
        types = {event.type for event in stream}
        final = stream.get_final_response()
    assert "response.function_call_arguments.done" in types
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]


def test_a_stream_that_breaks_off_has_failed(client: openai.OpenAI) -> None:
    events = list(ask(client, "dies later", stream=True))
    assert events[-1].type == "response.failed"
    assert (events[-1].response.status, events[-1].response.error.code) == ("failed", "server_error")
    assert "/secret" not in events[-1].response.model_dump_json()
    assert client.responses.retrieve(events[-1].response.id).status == "failed"


def test_a_client_that_goes_away_leaves_a_cancelled_response(
    served: tuple[str, ScriptedManager], client: openai.OpenAI
) -> None:
    stream = ask(client, "forever", stream=True)
    response_id = next(event for event in stream if event.type == "response.created").response.id
    next(event for event in stream if event.type == "response.output_text.delta")
    stream.close()
    assert served[1].ended.wait(30)
    for _ in range(10_000):  # each look is a round trip
        response = httpx.get(f"{served[0]}/v1/responses/{response_id}")
        if response.status_code == 200:
            break
    assert response.json()["status"] == "cancelled"
    assert response.json()["output"][0]["content"][0]["text"].startswith("on ")


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [("too long", 400, "context_length_exceeded"), ("full", 503, "queue_full"), ("crash", 500, "internal_error")],
)
def test_refusals_are_statuses(served: tuple[str, ScriptedManager], script: str, status: int, code: str) -> None:
    for stream in (False, True):
        body = {"model": "scripted", "input": script, "stream": stream}
        response = httpx.post(f"{served[0]}/v1/responses", json=body)
        assert (response.status_code, error_of(response)["code"]) == (status, code)


def test_a_lenient_server_tells_what_it_left_out(tmp_path: Path) -> None:
    item = {"role": "user", "content": "hello", "mood": "fine"}
    body = {"model": "scripted", "input": [item], "colour": 1, "tools": [{**TOOL, "odd": True}]}
    with responses_server(tmp_path / "corral.db", lenient=True) as (url, _):
        reply = httpx.post(f"{url}/v1/responses", json=body)
        assert reply.headers["X-Corral-Ignored"] == "colour, tools[0].odd, input[0].mood"
        items = httpx.get(f"{url}/v1/responses/{reply.json()['id']}/input_items").json()["data"]
        assert "mood" not in items[0]


def test_an_effort_for_a_model_that_does_not_think(served: tuple[str, ScriptedManager]) -> None:
    body = {"model": "scripted", "input": "no thinking", "reasoning": {"effort": "low"}}
    reply = httpx.post(f"{served[0]}/v1/responses", json=body)
    assert [request.think for request in served[1].requests] == ["low", None]
    assert error_of(reply)["param"] == "think"  # the script refuses every request, so the second one too
