"""The official client against a live server; models say what the test has written for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from corral.request import Delta, FinishReason, Overflow
from corral.store.local_model import LocalModel
from corral.tool_call import ToolCallDelta, ToolMode
from tests.support.anthropic_api import WrittenServer, call_deltas, end, written_server
from tests.support.gguf_writer import write_tiny_gguf

MESSAGES = "/v1/messages"
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WrittenServer]:
    folder = tmp_path_factory.mktemp("anthropic")
    gguf = write_tiny_gguf(folder / "tiny.gguf")
    thinking = "{{ enable_thinking }}{% for m in messages %}{{ m.content }}{% endfor %}<think>"
    models = (
        LocalModel("tiny:latest", gguf),
        LocalModel("thinker:latest", gguf, template=thinking),
        LocalModel("tuned:latest", gguf, system="Be brief.", parameters={"temperature": 0.25, "stop": ["END"]}),
    )
    with written_server(folder / "models", *models) as running:
        yield running


@pytest.fixture
def client(server: WrittenServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


def ask(script: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "max_tokens": 100, "messages": [{"role": "user", "content": script}], **fields}


def test_a_message(client: anthropic.Anthropic) -> None:
    reply = client.messages.create(**ask("one two"))
    assert (reply.id[:4], reply.type, reply.role, reply.model) == ("msg_", "message", "assistant", "tiny:latest")
    [block] = reply.content
    assert (block.type, block.type == "text" and block.text) == ("text", "ONE TWO ")
    assert (reply.stop_reason, reply.stop_sequence) == ("end_turn", None)
    usage = reply.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (2, 1, 2)
    assert reply._request_id is not None
    assert reply._request_id.startswith("req_")


def test_a_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**ask("one two")) as stream:
        assert list(stream.text_stream) == ["ONE ", "TWO "]
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 2, 2)
    kinds = [event.type for event in client.messages.create(**ask("one two"), stream=True)]
    assert kinds == ["message_start", "content_block_start", *["content_block_delta"] * 2, "content_block_stop",
                     "message_delta", "message_stop"]  # fmt: skip


def test_the_asynchronous_client(server: WrittenServer) -> None:
    async def run() -> tuple[str, Any]:
        made = anthropic.AsyncAnthropic(base_url=server.url, auth_token="none", max_retries=0)
        async with made as client, client.messages.stream(**ask("a b c", max_tokens=2)) as stream:
            text = "".join([part async for part in stream.text_stream])
            return text, (await stream.get_final_message()).stop_reason

    assert asyncio.run(run()) == ("A B ", "max_tokens")


@pytest.mark.parametrize("stream", [False, True])
def test_tools(server: WrittenServer, client: anthropic.Anthropic, stream: bool) -> None:
    calls = [*call_deltas(0, "weather", '{"city":', ' "Oslo"}'), *call_deltas(1, "weather", '{"city": "Rome"}')]
    server.write("weather?", Delta(0, "Let me look."), *calls, end(FinishReason.TOOL_CALLS))
    fields = ask("weather?", tools=[WEATHER], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    if stream:
        with client.messages.stream(**fields) as events:
            reply: Any = events.get_final_message()
    else:
        reply = client.messages.create(**fields)
    assert [block.type for block in reply.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in reply.content[1:]] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert len({block.id for block in reply.content[1:]}) == 2
    assert reply.stop_reason == "tool_use"
    choice = server.last.tool_choice
    assert (choice.mode, choice.is_parallel) == (ToolMode.REQUIRED, False)
    # The answer goes back as it came, with the tools' results.
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "rain"} for block in reply.content[1:]]
    turns = [*fields["messages"], {"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]
    client.messages.create(**{**fields, "messages": turns, "tool_choice": {"type": "auto"}})
    sent = server.last.messages or []
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [call["function"]["arguments"] for call in sent[1]["tool_calls"]] == [{"city": "Oslo"}, {"city": "Rome"}]


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_call_is_text(server: WrittenServer, client: anthropic.Anthropic, stream: bool) -> None:
    begun = Delta(0, "", tool_calls=(ToolCallDelta(0, "weather", "{"),))
    server.write("broken", begun, Delta(0, "", tool_calls=(ToolCallDelta(0, broken="<tool_call>{"),)), end())
    if stream:
        with client.messages.stream(**ask("broken", tools=[WEATHER])) as events:
            reply: Any = events.get_final_message()
    else:
        reply = client.messages.create(**ask("broken", tools=[WEATHER]))
    assert [block.text for block in reply.content] == ["<tool_call>{"]
    assert reply.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(server: WrittenServer, client: anthropic.Anthropic, stream: bool) -> None:
    server.write("think", Delta(0, "", thinking="hm, "), Delta(0, "so", thinking="yes"), end())
    fields = ask("think", model="thinker", thinking={"type": "enabled", "budget_tokens": 50})
    if stream:
        with client.messages.stream(**fields) as events:
            reply: Any = events.get_final_message()
    else:
        reply = client.messages.create(**fields)
    assert (reply.content[0].thinking, reply.content[1].text) == ("hm, yes", "so")
    assert reply.content[0].signature
    assert (server.last.think, server.last.thinking_budget) == (True, 50)
    client.messages.create(**ask([*reply.content[1:], {"type": "text", "text": "x"}], model="thinker"))


def test_a_model_that_cannot_think_is_not_asked_to(server: WrittenServer, client: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 50}
    for stream in (False, True):
        raw = client.messages.with_raw_response.create(**ask("hi there", thinking=thinking), stream=stream)
        assert raw.headers["x-corral-ignored"] == "thinking"
        assert (server.last.think, server.last.thinking_budget) == (None, None)


def test_what_a_modelfile_adds(server: WrittenServer, client: anthropic.Anthropic) -> None:
    server.write("stops", Delta(0, "a"), end(stop="END"))
    reply = client.messages.create(**ask("stops", model="tuned"))
    assert (reply.stop_reason, reply.stop_sequence) == ("end_turn", None)
    assert (server.last.messages or [])[0] == {"role": "system", "content": "Be brief."}
    assert (server.last.sampling.temperature, server.last.sampling.stop) == (0.25, ("END",))
    reply = client.messages.create(
        **ask("stops", model="tuned", stop_sequences=["END"]), extra_body={"temperature": 1.0}
    )
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "END")
    assert server.last.sampling.temperature == 1.0


def test_long_prompts_are_refused_but_long_answers_end_with_the_context(
    server: WrittenServer, client: anthropic.Anthropic
) -> None:
    server.write("no room", Delta(0, "a"), end(FinishReason.LENGTH))
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError, match="the context holds 8 tokens"):
            client.messages.create(**ask("too long"), stream=stream)
        assert server.last.overflow is Overflow.REFUSE
    assert client.messages.create(**ask("no room")).stop_reason == "model_context_window_exceeded"
    with client.messages.stream(**ask("no room")) as events:
        assert events.get_final_message().stop_reason == "model_context_window_exceeded"


def test_structured_output(server: WrittenServer, client: anthropic.Anthropic) -> None:
    form: Any = {"type": "json_schema", "schema": {"type": "object"}}
    client.messages.create(**ask("a"), output_config={"format": form})
    assert server.last.grammar is not None
    assert server.last.grammar.source == '{"type":"object"}'


def test_counting(client: anthropic.Anthropic) -> None:
    messages: Any = ask("one two three")["messages"]
    assert client.messages.count_tokens(model="tiny", messages=messages, tools=[WEATHER]).input_tokens == 3
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="nope", messages=messages)


def test_models(client: anthropic.Anthropic) -> None:
    assert [model.id for model in client.models.list()] == ["tiny:latest", "thinker:latest", "tuned:latest"]
    assert [model.id for model in client.models.list(limit=1)] == ["tiny:latest", "thinker:latest", "tuned:latest"]
    page = client.models.list(limit=1, before_id="tuned:latest")
    assert ([model.id for model in page.data], page.has_more) == (["thinker:latest"], True)
    model = client.models.retrieve("tiny:latest")
    assert (model.type, model.display_name, model.created_at.tzinfo is not None) == ("model", "tiny:latest", True)
    with pytest.raises(anthropic.BadRequestError):
        client.models.list(limit=0)
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("nope")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "error", "status", "kind"),
    [
        ("too long", anthropic.BadRequestError, 400, "invalid_request_error"),
        ("full", anthropic.InternalServerError, 529, "overloaded_error"),
        ("dies", anthropic.InternalServerError, 503, "api_error"),
        ("crash", anthropic.InternalServerError, 500, "api_error"),
    ],
)
def test_refusals(
    client: anthropic.Anthropic,
    script: str,
    error: type[anthropic.APIStatusError],
    status: int,
    kind: str,
    stream: bool,
) -> None:
    with pytest.raises(error) as caught:
        client.messages.create(**ask(script), stream=stream)
    response = caught.value.response
    payload = response.json()
    assert (response.status_code, payload["type"], payload["error"]["type"]) == (status, "error", kind)
    assert payload["request_id"] == response.headers["request-id"]
    assert "/secret" not in response.text
    assert status != 529 or response.headers["retry-after"] == "7"


def test_a_stream_that_breaks_off(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="worker process has died") as caught:
        list(client.messages.create(**ask("dies later or so"), stream=True))
    assert "/secret" not in str(caught.value)


def test_models_that_are_not_here(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="corral launch claude"):
        client.messages.create(**ask("a", model="claude-none-9"))
    with pytest.raises(anthropic.NotFoundError, match="GET /v1/models"):
        client.messages.create(**ask("a", model="nope"))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", MESSAGES, b"{}", 400, "invalid_request_error"),
        ("POST", MESSAGES, b"{", 400, "invalid_request_error"),
        ("POST", MESSAGES, json.dumps(ask("a", temperatur=1)).encode(), 400, "invalid_request_error"),
        ("GET", MESSAGES, None, 405, "invalid_request_error"),
        ("POST", f"{MESSAGES}/batches", b"{}", 404, "not_found_error"),
        ("GET", "/v1/models/nope", None, 404, "not_found_error"),
    ],
)
def test_errors_have_anthropics_form(
    server: WrittenServer, method: str, path: str, body: bytes | None, status: int, kind: str
) -> None:
    headers = {"content-type": "application/json", **VERSION}
    response = httpx.request(method, server.url + path, content=body, headers=headers)
    payload = response.json()
    assert (response.status_code, set(payload)) == (status, {"type", "error", "request_id"})
    assert (payload["error"]["type"], set(payload["error"])) == (kind, {"type", "message"})
    assert payload["request_id"] == response.headers["request-id"]


def test_the_version_is_not_wanted_and_betas_pass(server: WrittenServer) -> None:
    url = f"{server.url}{MESSAGES}?beta=true"
    assert httpx.post(url, json=ask("a"), headers={"anthropic-beta": "interleaved-thinking-2025-05-14"}).is_success
    models = httpx.get(f"{server.url}/v1/models").json()
    assert models["object"] == "list"


def test_keys(tmp_path: Path) -> None:
    local = LocalModel("tiny:latest", write_tiny_gguf(tmp_path / "tiny.gguf"))
    with written_server(tmp_path / "models", local, api_keys=("first", "second")) as guarded:
        url = guarded.url + MESSAGES
        good = [{"x-api-key": "first"}, {"authorization": "Bearer second"}]
        both = {"x-api-key": "first", "authorization": "Bearer first"}
        for headers in (*good, both, {"x-api-key": "", "authorization": "Bearer first"}):
            assert httpx.post(url, json=ask("a"), headers=headers).status_code == 200
        different = {"x-api-key": "first", "authorization": "Bearer second"}
        for headers in ({}, {"x-api-key": "wrong"}, {"x-api-key": "first-and-more"}, different):
            response = httpx.post(url, json=ask("a"), headers=headers)
            assert (response.status_code, response.json()["error"]["type"]) == (401, "authentication_error")
        assert httpx.get(f"{guarded.url}/api/tags", headers={"x-api-key": "first"}).status_code == 200
        client = anthropic.Anthropic(base_url=guarded.url, api_key="wrong", max_retries=0)
        with client, pytest.raises(anthropic.AuthenticationError):
            client.messages.create(**ask("a"))


def test_bodies_that_are_too_large(tmp_path: Path) -> None:
    local = LocalModel("tiny:latest", write_tiny_gguf(tmp_path / "tiny.gguf"))
    with written_server(tmp_path / "models", local, max_body_bytes=1000) as small:
        response = httpx.post(small.url + MESSAGES, json=ask("a" * 2000))
        assert (response.status_code, response.json()["error"]["type"]) == (413, "request_too_large")


def test_a_lenient_server_tells_what_it_left_out(tmp_path: Path) -> None:
    local = LocalModel("tiny:latest", write_tiny_gguf(tmp_path / "tiny.gguf"))
    with written_server(tmp_path / "models", local, lenient=True) as lenient:
        for fields in ({}, {"stream": True}):
            response = httpx.post(lenient.url + MESSAGES, json=ask("a", colour="red", **fields))
            assert (response.status_code, response.headers["x-corral-ignored"]) == (200, "colour")
