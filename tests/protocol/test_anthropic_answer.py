"""Deltas -> blocks: whatever the model writes, the blocks are well formed, and nothing of it is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import QueueFull
from corral.protocol.anthropic.answer import MessageCollector
from corral.protocol.anthropic.messages import MessagesCall, parse_create
from corral.protocol.anthropic.stream import MessageStream
from corral.request import Delta, FinishReason, RequestOutput, Usage
from corral.tool_call import ToolCallDelta
from tests.support.anthropic_api import call_deltas, end

CALLED = end(FinishReason.TOOL_CALLS)


def call_of(**fields: Any) -> MessagesCall:
    body = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "a"}], **fields}
    return parse_create(body, {})


def outputs_of(deltas: list[Delta]) -> list[RequestOutput]:
    usages = [Usage(12, number, 5 if number else 0) for number in range(len(deltas) + 1)]
    return [
        RequestOutput("r", usage=usages[0]),
        *(RequestOutput("r", (d,), u) for d, u in zip(deltas, usages[1:], strict=True)),
    ]


def events_of(deltas: list[Delta], call: MessagesCall) -> list[dict[str, Any]]:
    stream = MessageStream(call, "m")
    data = stream.open() + b"".join(stream.encode(0, output) for output in outputs_of(deltas)) + stream.close()
    events = []
    for text in data.decode().strip().split("\n\n"):
        name, payload = text.split("\n")
        events.append(json.loads(payload.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def blocks_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client makes of the events; fails where they are out of order."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                blocks.append(dict(event["content_block"]) | {"json": ""})
                is_open = True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                delta = event["delta"]
                field = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
                if delta["type"] == "signature_delta":
                    blocks[-1]["signature"] = delta["signature"]
                else:
                    name = field[delta["type"]]
                    blocks[-1]["json" if name == "partial_json" else name] += delta[name]
            case "content_block_stop":
                assert is_open
                is_open = False
    assert not is_open
    return blocks


def plain(blocks: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for block in blocks:
        if block["type"] == "tool_use":
            assert block["id"].startswith("toolu_")
            found.append(
                ("tool_use", block["name"], json.loads(block["json"]) if block.get("json") else block["input"])
            )
        else:
            found.append((block["type"], block[block["type"]]))
    return found


def answer(deltas: list[Delta], **fields: Any) -> tuple[list[tuple[Any, ...]], str]:
    """Blocks and stop_reason, which are the same streamed and not."""
    call = call_of(**fields)
    collector = MessageCollector(call)
    for output in outputs_of(deltas):
        collector.add(output)
    whole = collector.whole("m")
    events = events_of(deltas, call)
    assert plain(blocks_of(events)) == plain(whole["content"])
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    assert events[-2]["delta"]["stop_reason"] == whole["stop_reason"]
    assert events[-2]["delta"]["stop_sequence"] == whole["stop_sequence"]
    return plain(whole["content"]), str(whole["stop_reason"])


def text(content: str) -> Delta:
    return Delta(0, content)


def test_text() -> None:
    assert answer([text("a "), text(""), text("b"), end()]) == ([("text", "a b")], "end_turn")
    assert answer([end()]) == ([], "end_turn")
    assert answer([text(" \n"), end()]) == ([("text", " \n")], "end_turn")
    assert answer([text("\n"), text("a"), end(FinishReason.LENGTH)]) == ([("text", "\na")], "max_tokens")


def test_thinking() -> None:
    deltas = [Delta(0, "", thinking="h"), Delta(0, "a", thinking="m"), end()]
    assert answer(deltas) == ([("thinking", "hm"), ("text", "a")], "end_turn")
    blocks = blocks_of(events_of(deltas, call_of()))
    assert blocks[0]["signature"]
    omitted = answer(deltas, thinking={"type": "adaptive", "display": "omitted"})
    assert omitted == ([("thinking", ""), ("text", "a")], "end_turn")


def test_calls() -> None:
    deltas = [
        text("Look: "),
        *call_deltas(0, "f", '{"a"', ": 1", "}"),
        text("\n"),
        *call_deltas(1, "g", ""),
        text(" "),
        CALLED,
    ]
    assert answer(deltas) == ([("text", "Look: "), ("tool_use", "f", {"a": 1}), ("tool_use", "g", {})], "tool_use")
    both = Delta(0, "", tool_calls=(ToolCallDelta(0, "f", "{}", is_whole=True), ToolCallDelta(1, "f", "{}", True)))
    assert answer([both, CALLED])[0] == [("tool_use", "f", {})] * 2


@pytest.mark.parametrize("eager", [False, True])
def test_input_is_told_as_it_is_written_only_where_it_is_wanted(eager: bool) -> None:
    tool = {"name": "f", "input_schema": {"type": "object"}, "eager_input_streaming": eager}
    deltas = [*call_deltas(0, "f", '{"a"', ": 1", "}"), CALLED]
    assert answer(deltas, tools=[tool]) == ([("tool_use", "f", {"a": 1})], "tool_use")
    parts = [e for e in events_of(deltas, call_of(tools=[tool])) if e["type"] == "content_block_delta"]
    assert len(parts) == (3 if eager else 1)


def test_a_call_that_is_none_is_text() -> None:
    begun = Delta(0, "", tool_calls=(ToolCallDelta(0, "f", '{"a": '),))
    broken = Delta(0, "", tool_calls=(ToolCallDelta(0, broken='<tool_call>{"a": oops'),))
    assert answer([text("a "), begun, broken, text("!"), end()]) == (
        [("text", 'a <tool_call>{"a": oops!')],
        "end_turn",
    )
    assert answer([*call_deltas(0, "f", "{}"), Delta(0, "", tool_calls=(ToolCallDelta(1, broken="x"),)), CALLED]) == (
        [("tool_use", "f", {}), ("text", "x")],
        "tool_use",
    )
    tool = {"name": "f", "input_schema": {"type": "object"}, "eager_input_streaming": True}
    blocks = blocks_of(events_of([begun, broken, end()], call_of(tools=[tool])))
    assert [block["type"] for block in blocks] == ["tool_use", "text"]
    assert blocks[1]["text"] == '<tool_call>{"a": oops'


def test_a_call_that_is_cut_off_is_text() -> None:
    begun = Delta(0, "", tool_calls=(ToolCallDelta(0, "f", '{"a": '),))
    assert answer([begun, end(FinishReason.LENGTH)]) == ([("text", 'f{"a": ')], "max_tokens")


@pytest.mark.parametrize("arguments", ["[1]", "{", '{"a": NaN}', "null", "[" * 100_000])
def test_arguments_that_are_no_object_are_text(arguments: str) -> None:
    assert answer([*call_deltas(0, "f", arguments), CALLED]) == ([("text", f"f{arguments}")], "end_turn")


def test_why_it_ended() -> None:
    assert answer([end(stop="END")], stop_sequences=["END"]) == ([], "stop_sequence")
    assert answer([end(stop="<|im_end|>")], stop_sequences=["END"]) == ([], "end_turn")
    assert answer([end(stop=7)]) == ([], "end_turn")
    assert answer([CALLED]) == ([], "end_turn")
    call = call_of(stop_sequences=["END"])
    assert events_of([end(stop="END")], call)[-2]["delta"]["stop_sequence"] == "END"
    clamped = call_of().clamped()
    assert clamped.request.sampling.max_tokens is None
    last = events_of([end(FinishReason.LENGTH)], clamped)[-2]["delta"]
    assert last["stop_reason"] == "model_context_window_exceeded"


def test_usage_tells_cached_tokens_apart() -> None:
    events = events_of([text("a"), end()], call_of())
    start, last = events[0]["message"]["usage"], events[-2]["usage"]
    assert (start["input_tokens"], start["cache_read_input_tokens"], start["output_tokens"]) == (12, 0, 0)
    assert (last["input_tokens"], last["cache_read_input_tokens"], last["output_tokens"]) == (7, 5, 2)
    assert last["cache_creation_input_tokens"] == 0


def test_a_stream_that_fails() -> None:
    event = MessageStream(call_of(), "m").fail(QueueFull("the queue is full"), "req_1")
    error = {"type": "overloaded_error", "message": "the queue is full"}
    assert event.startswith(b"event: error\ndata: ")
    assert json.loads(event.split(b"data: ")[1]) == {"type": "error", "error": error, "request_id": "req_1"}
