from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.protocol.answer import Answers
from corral.protocol.openai.chat import ChatCall, parse_chat
from corral.protocol.openai.chat_answer import ChatStream, encode_chat_answer
from corral.request import Delta, FinishReason, RequestOutput
from corral.tool_call import ToolCallDelta, ToolChoice, ToolMode

WEATHER = {"name": "weather", "description": "of a city", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": {"name": "clock"}}]
NAMED = {"type": "function", "function": {"name": "clock"}}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, ToolChoice()),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, ToolChoice(is_parallel=False)),
        ({"tool_choice": "none"}, ToolChoice(ToolMode.NONE)),
        ({"tool_choice": "required"}, ToolChoice(ToolMode.REQUIRED)),
        ({"tool_choice": NAMED}, ToolChoice(ToolMode.REQUIRED, ("clock",))),
        ({"tool_choice": {"type": "function", "name": "clock"}}, ToolChoice(ToolMode.REQUIRED, ("clock",))),
        ({"tool_choice": allowed("auto", "clock")}, ToolChoice(ToolMode.AUTO, ("clock",))),
        ({"tool_choice": allowed("required", "clock", "weather")}, ToolChoice(ToolMode.REQUIRED, ("clock", "weather"))),
    ],
)
def test_choices(fields: dict[str, Any], choice: ToolChoice) -> None:
    request = parse_chat(body(tools=TOOLS, **fields)).request
    assert request.tool_choice == choice
    assert request.tools == [
        {"type": "function", "function": WEATHER},
        {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}},
    ]


def test_functions_are_tools() -> None:
    call = parse_chat(body(functions=[WEATHER], function_call={"name": "weather"}))
    assert call.request.tools == [{"type": "function", "function": WEATHER}]
    assert call.request.tool_choice == ToolChoice(ToolMode.REQUIRED, ("weather",), is_parallel=False)
    assert parse_chat(body(tools=[])).request.tools is None


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type", "only tools of type 'function'"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "1 to 64"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "params": {}}}]},
            "tools[0].function.params",
            "did you mean parameters?",
        ),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1]", "another has already"),
        ({"tools": TOOLS * 100}, "tools", "at most 128"),
        ({"tools": 5}, "tools", "a list"),
        ({"tool_choice": "required"}, "tool_choice", "only allowed with tools"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice", "none, auto, required"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function", "required"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
            "no tool of that name",
        ),
        ({"tools": TOOLS, "tool_choice": allowed("never", "clock")}, "tool_choice.allowed_tools.mode", "auto or"),
        ({"tools": TOOLS, "tool_choice": allowed("auto", "x")}, "tool_choice.allowed_tools.tools[0]", "no tool"),
        ({"tools": TOOLS, "functions": [WEATHER]}, "functions", "one of them"),
        ({"functions": [WEATHER], "function_call": "maybe"}, "function_call", "none, auto"),
        ({"function_call": {"name": "x"}}, "function_call", "only allowed with functions"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**fields))
    assert caught.value.param == param
    assert words in caught.value.message


OUTPUTS = [
    RequestOutput("r", (Delta(0, "Let me see.", tool_calls=(ToolCallDelta(0, "weather"),)),)),
    RequestOutput("r", (Delta(0, "", tool_calls=(ToolCallDelta(0, arguments='{"city"'),)),)),
    RequestOutput("r", (Delta(0, "", tool_calls=(ToolCallDelta(0, arguments=': "Rome"}', is_whole=True),)),)),
    RequestOutput("r", (Delta(0, "", tool_calls=(ToolCallDelta(1, "clock", "{", is_whole=False),)),)),
    RequestOutput("r", (Delta(0, "", tool_calls=(ToolCallDelta(1, broken="<call>clock{"),)),)),
    RequestOutput("r", (Delta(0, "", (), FinishReason.TOOL_CALLS),), is_finished=True),
]


def whole(call: ChatCall, outputs: list[RequestOutput]) -> Any:
    answers = Answers(1)
    for output in outputs:
        answers.add(output)
    return encode_chat_answer(call, answers, "m", 1)["choices"][0]


def chunks(call: ChatCall, outputs: list[RequestOutput]) -> list[Any]:
    stream = ChatStream(call, "m", 1)
    raw = b"".join(stream.encode(0, output) for output in outputs).decode()
    return [json.loads(line[6:])["choices"][0] for line in raw.split("\n\n") if line]


def test_a_whole_answer_has_calls_and_broken_ones_as_content() -> None:
    choice = whole(parse_chat(body(tools=TOOLS)), OUTPUTS)
    [called] = choice["message"]["tool_calls"]
    assert called["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert called["type"] == "function"
    assert called["id"].startswith("call_")
    assert len(called["id"]) <= 40  # as long as OpenAI lets one be in a message
    assert choice["message"]["content"] == "Let me see.<call>clock{"
    assert choice["finish_reason"] == "tool_calls"


def test_content_is_null_beside_calls_alone() -> None:
    only = RequestOutput("r", (Delta(0, "", tool_calls=(ToolCallDelta(0, "clock", "{}", is_whole=True),)),))
    assert whole(parse_chat(body(tools=TOOLS)), [only])["message"]["content"] is None


def test_a_named_choice_ends_with_stop() -> None:
    assert whole(parse_chat(body(tools=TOOLS, tool_choice=NAMED)), OUTPUTS)["finish_reason"] == "stop"
    one_allowed = parse_chat(body(tools=TOOLS, tool_choice=allowed("required", "clock")))
    assert whole(one_allowed, OUTPUTS)["finish_reason"] == "tool_calls"


def test_a_stream_has_deltas_of_calls() -> None:
    found = chunks(parse_chat(body(tools=TOOLS, stream=True)), OUTPUTS)
    deltas = [choice["delta"] for choice in found]
    assert deltas[0] == {"content": "Let me see."}
    [first] = deltas[1]["tool_calls"]
    call_id = first.pop("id")
    assert call_id.startswith("call_")
    assert first == {"index": 0, "type": "function", "function": {"name": "weather", "arguments": ""}}
    assert deltas[2] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}]}
    assert deltas[3] == {"tool_calls": [{"index": 0, "function": {"arguments": ': "Rome"}'}}]}
    assert deltas[4]["tool_calls"][0]["function"]["name"] == "clock"
    assert deltas[5] == {"content": "<call>clock{"}
    assert found[-1]["finish_reason"] == "tool_calls"


def test_answers_to_functions() -> None:
    outputs = [
        *OUTPUTS[:3],
        RequestOutput("r", (Delta(0, "", tool_calls=(ToolCallDelta(1, "clock", "{}", is_whole=True),)),)),
        OUTPUTS[-1],
    ]
    fields: Any = {"functions": [WEATHER, {"name": "clock"}]}
    choice = whole(parse_chat(body(**fields)), outputs)
    assert choice["message"]["function_call"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"
    extra = '\n{"name": "clock", "arguments": {}}'  # there is room for one call only; the other is not lost
    assert choice["message"]["content"] == "Let me see." + extra
    streamed = [choice["delta"] for choice in chunks(parse_chat(body(stream=True, **fields)), outputs)]
    assert streamed[1] == {"function_call": {"name": "weather", "arguments": ""}}
    assert "".join(delta.get("content") or "" for delta in streamed) == "Let me see." + extra


def test_messages_with_calls_and_results() -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [called], "reasoning_content": "hm"},
        {"role": "tool", "content": "noon", "tool_call_id": "call_1"},
        {"role": "assistant", "function_call": {"name": "clock", "arguments": "{}"}, "reasoning": "so"},
        {"role": "function", "name": "clock", "content": "one"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    found = parse_chat(body(messages=messages)).request.messages
    assert found is not None
    assert found[1] == {"role": "assistant", "content": "", "tool_calls": [called], "thinking": "hm"}
    assert found[3]["tool_calls"][0]["function"] == {"name": "clock", "arguments": "{}"}
    assert (found[3]["thinking"], found[4]["role"], found[4]["name"]) == ("so", "tool", "clock")
    assert found[4]["tool_call_id"] == found[3]["tool_calls"][0]["id"]
    assert found[5]["content"] == "no"
    with pytest.raises(InvalidRequest, match=r"messages\[0\].tool_calls\[0\].function.name is required"):
        parse_chat(body(messages=[{"role": "assistant", "tool_calls": [{"function": {}}]}]))
