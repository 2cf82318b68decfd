from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.protocol.ollama.answer import AnswerEncoder, Timings, rfc3339
from corral.protocol.ollama.chat import parse_chat
from corral.protocol.ollama.embed import parse_embed
from corral.protocol.ollama.generate import parse_generate
from corral.protocol.ollama.models import encode_time, format_parameters
from corral.request import Delta, FinishReason, RequestOutput, TokenLogprob, Usage

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
NOW_NS = 1_700_000_000_123_456_780


@pytest.mark.parametrize(
    ("now_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (NOW_NS, "2023-11-14T22:13:20.12345678Z"),
        (1_700_000_000_100_000_000, "2023-11-14T22:13:20.1Z"),
        (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"),
    ],
)
def test_times(now_ns: int, text: str) -> None:
    assert rfc3339(now_ns) == text


def test_times_of_the_store() -> None:
    assert encode_time(datetime.datetime(2026, 1, 2, 3, 4, 5, 60, datetime.UTC)) == "2026-01-02T03:04:05.00006Z"


def test_a_conversation_with_tools_reaches_the_template_as_it_is() -> None:
    call = {"id": "call_1", "function": {"index": 0, "name": "add", "arguments": {"a": 1, "b": [2]}}}
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "thinking": "hm", "tool_calls": [call], "content": None},
            {"role": "tool", "content": "2", "tool_name": "add", "tool_call_id": "call_1"},
            {"role": "Control", "content": "x"},
        ],
    }
    function = {"name": "add", "arguments": {"a": 1, "b": [2]}, "index": 0}
    assert parse_chat(body).request({}).messages == [
        {"role": "user", "content": "1+1?"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"type": "function", "function": function, "id": "call_1"}],
        },
        {"role": "tool", "content": "2", "tool_name": "add", "name": "add", "tool_call_id": "call_1"},
        {"role": "control", "content": "x"},
    ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "a"}, 'invalid role: ""'),
        ({"role": "x" * 65}, f'invalid role: "{"x" * 65}"'),
        ({"role": 5}, "json: cannot unmarshal number into Go struct field ChatRequest.messages.role of type string"),
        ("hi", "json: cannot unmarshal string into Go struct field ChatRequest.messages of type object"),
        ({"role": "assistant", "tool_calls": [{}]}, "a tool call has no function name"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            "json: cannot unmarshal string into Go struct field "
            "ChatRequest.messages.tool_calls.function.arguments of type object",
        ),
    ],
)
def test_messages_that_are_refused(message: Any, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat({"model": "m", "messages": [message]})
    assert str(caught.value) == text


def test_too_many_messages_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 10000"):
        parse_chat({"model": "m", "messages": MESSAGES * 10_001})


@pytest.mark.parametrize("context", [["a"], [-1], [1 << 31], [True], [1.0]])
def test_a_context_that_is_none(context: list[Any]) -> None:
    with pytest.raises(InvalidRequest, match="context must be"):
        parse_generate({"model": "m", "prompt": "a", "context": context})


def test_logprobs() -> None:
    call = parse_chat({"model": "m", "messages": MESSAGES, "logprobs": True, "top_logprobs": 1})
    assert call.request({}).sampling.logprobs == 1
    assert parse_chat({"model": "m", "messages": MESSAGES, "top_logprobs": 3}).request({}).sampling.logprobs is None
    assert parse_chat({"model": "m", "messages": MESSAGES, "logprobs": True}).request({}).sampling.logprobs == 0
    token = TokenLogprob(7, b"\xc3", -0.5, ((b"ab", -0.25),))
    output = RequestOutput("r", (Delta(0, "", (7,), logprobs=(token,)),), Usage(1, 1))
    expected = {
        "token": "\ufffd",
        "logprob": -0.5,
        "bytes": [195],
        "top_logprobs": [{"token": "ab", "logprob": -0.25, "bytes": [97, 98]}],
    }
    assert json.loads(AnswerEncoder(call).lines(output, NOW_NS))["logprobs"] == [expected]
    encoder = AnswerEncoder(call)
    encoder.add(output)
    assert encoder.whole(Timings(4, 3), NOW_NS)["logprobs"] == [expected]


def test_what_is_zero_is_left_out() -> None:
    encoder = AnswerEncoder(parse_generate({"model": "m", "prompt": "a"}))
    encoder.add(RequestOutput("r", (Delta(0, "", (), FinishReason.STOP),), Usage(), True))
    assert encoder.whole(Timings(total=4, load=0), NOW_NS) == {
        "model": "m",
        "created_at": rfc3339(NOW_NS),
        "response": "",
        "done": True,
        "done_reason": "stop",
        "total_duration": 4,
    }


def test_parameters_as_text() -> None:
    text = format_parameters({"temperature": 0.7, "use_mmap": True, "stop": ['"a"', "é"], "num_ctx": 8})
    assert [line.split(maxsplit=1) for line in text.splitlines()] == [
        ["temperature", "0.7"],
        ["use_mmap", "true"],
        ["stop", r'"\"a\""'],
        ["stop", '"é"'],
        ["num_ctx", "8"],
    ]


def test_a_modelfiles_context_of_the_wrong_type_is_told() -> None:
    for call in (parse_chat({"model": "m"}), parse_embed({"model": "m"})):
        assert call.num_ctx({"num_ctx": 8}) == 8
        with pytest.raises(InvalidRequest, match='option "num_ctx" must be of type integer'):
            call.num_ctx({"num_ctx": "many"})
