"""Tools, structured output and rendered prompts of Ollama's API, by its official client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest

from corral.grammar import Grammar, GrammarKind
from corral.request import Delta, FinishReason
from corral.store.local_model import LocalModel
from corral.tool_call import ToolCallDelta
from tests.support.anthropic_api import WrittenServer, call_deltas, end, written_server
from tests.support.gguf_writer import write_tiny_gguf

ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Of two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WrittenServer]:
    folder = tmp_path_factory.mktemp("tools")
    with written_server(folder / "models", LocalModel("tiny:latest", write_tiny_gguf(folder / "tiny.gguf"))) as running:
        yield running


@pytest.fixture
def client(server: WrittenServer) -> Iterator[ollama.Client]:
    made = ollama.Client(server.url, timeout=60)
    yield made
    made._client.close()


def ask(script: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": script}]


def calls_of(message: ollama.Message) -> list[tuple[str, Any]]:
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def test_calls(server: WrittenServer, client: ollama.Client) -> None:
    calls = [*call_deltas(0, "add", '{"a":', " 1}"), *call_deltas(1, "add", "")]
    server.write("add!", Delta(0, "So: "), *calls, end(FinishReason.TOOL_CALLS))
    reply = client.chat("tiny", ask("add!"), tools=[ADD])
    assert server.last.tools == [ADD]
    assert (reply.message.content, reply.done_reason) == ("So: ", "stop")
    assert calls_of(reply.message) == [("add", {"a": 1}), ("add", {})]
    parts = list(client.chat("tiny", ask("add!"), tools=[ADD], stream=True))
    assert [calls_of(part.message) for part in parts] == [[], [("add", {"a": 1})], [("add", {})], []]
    assert (parts[-1].done, parts[-1].done_reason) == (True, "stop")
    # The calls go back as they came.
    turns: list[Any] = [*ask("add!"), reply.message, {"role": "tool", "content": "2", "tool_name": "add"}]
    client.chat("tiny", turns, tools=[ADD])
    sent = server.last.messages or []
    assert [call["function"]["arguments"] for call in sent[1]["tool_calls"]] == [{"a": 1}, {}]


def test_a_call_as_it_is_on_the_wire(server: WrittenServer) -> None:
    server.write("add!", *call_deltas(0, "add", '{"a": 1}'), end(FinishReason.TOOL_CALLS))
    body = {"model": "tiny", "messages": ask("add!"), "tools": [ADD], "stream": False}
    [call] = httpx.post(f"{server.url}/api/chat", json=body).json()["message"]["tool_calls"]
    assert set(call) == {"id", "function"}
    assert (call["id"][:5], len(call["id"])) == ("call_", 13)
    assert call["function"] == {"index": 0, "name": "add", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    ("deltas", "text"),
    [
        ([ToolCallDelta(0, "add", "{"), ToolCallDelta(0, broken="<tool_call>{")], "<tool_call>{"),
        ([ToolCallDelta(0, "add", '{"a":')], 'add{"a":'),
        ([ToolCallDelta(0, "add", "[1]", is_whole=True)], "add[1]"),
    ],
)
def test_what_is_no_call_is_content(
    server: WrittenServer, client: ollama.Client, deltas: list[ToolCallDelta], text: str
) -> None:
    server.write("broken", *(Delta(0, "", tool_calls=(delta,)) for delta in deltas), end())
    reply = client.chat("tiny", ask("broken"), tools=[ADD])
    assert (reply.message.content, calls_of(reply.message)) == (text, [])
    parts = list(client.chat("tiny", ask("broken"), tools=[ADD], stream=True))
    assert "".join(part.message.content or "" for part in parts) == text


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        (None, None),
        ("", None),
        ("json", Grammar(GrammarKind.JSON_OBJECT)),
        ({"type": "object"}, Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object"}')),
        ({}, Grammar(GrammarKind.JSON_SCHEMA, "{}")),
    ],
)
def test_formats(server: WrittenServer, client: ollama.Client, form: Any, grammar: Grammar | None) -> None:
    client.chat("tiny", ask("a"), format=form)
    assert server.last.grammar == grammar
    client.generate("tiny", "a", format=form)
    assert server.last.grammar == grammar
    client.generate("tiny", "a", format=form, raw=True)
    assert server.last.grammar == grammar


def test_a_prompt_is_only_shown(server: WrittenServer) -> None:
    num_requests = len(server.manager.requests)
    for path, prompt in (("chat", {"messages": ask("a b")}), ("generate", {"prompt": "a b"})):
        reply = httpx.post(f"{server.url}/api/{path}", json={"model": "tiny", **prompt, "_debug_render_only": True})
        assert reply.json()["_debug_info"] == {"rendered_template": "a b"}
        assert reply.json()["model"] == "tiny"
    refused = httpx.post(
        f"{server.url}/api/chat", json={"model": "tiny", "messages": ask("too long"), "_debug_render_only": True}
    )
    assert (refused.status_code, "context length" in refused.json()["error"]) == (400, True)
    assert len(server.manager.requests) == num_requests


def test_too_many_tools_are_refused(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="at most 1024"):
        client.chat("tiny", ask("a"), tools=[ADD] * 1025)
