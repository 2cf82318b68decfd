from __future__ import annotations

from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.grammar import GrammarKind
from corral.protocol.responses.call import ResponsesCall, parse_responses
from corral.tool_call import ToolChoice, ToolMode

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'}


def parse(given: Any = "hi", **fields: Any) -> ResponsesCall:
    return parse_responses({"model": "m", "input": given, **fields})


def messages_of(given: Any, **fields: Any) -> list[dict[str, Any]]:
    return parse(given, **fields).with_history([]).messages or []


def test_parts_and_roles() -> None:
    given = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": part} for part in "ab"]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "id": "msg_1", "status": "completed"},
    ]
    assert messages_of(given, instructions="First.") == [
        {"role": "system", "content": "First."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "No."},
    ]


def test_a_turn_of_the_model_is_one_message() -> None:
    given = [
        {"role": "user", "content": "weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"role": "assistant", "content": "I look."},
        CALL,
        {**CALL, "call_id": "call_2"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "sun"}]},
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}], "encrypted_content": None},
        {"role": "assistant", "content": "Both."},
    ]
    _, turn, second, first, last = messages_of(given)
    assert (turn["thinking"], turn["reasoning_content"], turn["content"]) == ("hm", "hm", "I look.")
    assert [call["function"]["arguments"] for call in turn["tool_calls"]] == [{"city": "Rome"}] * 2
    assert (second["content"], second["tool_call_id"], second["name"]) == ("sun", "call_2", "weather")
    assert (first["content"], first["tool_call_id"]) == ("rain", "call_1")
    assert (last["thinking"], last["content"]) == ("so", "Both.")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        ([], "input"),
        ([7], "input[0]"),
        ([{"type": "message", "role": "user"}], "input[0].content"),
        ([{"role": "robot", "content": "x"}], "input[0].role"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content[0]"),
        ([{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}], "input[0].content[0]"),
        ([{"role": "user", "content": 5}], "input[0].content"),
        ([{"role": "user", "content": "x", "colour": 1}], "input[0].colour"),
        ([{"type": "custom_tool_call", "call_id": "x"}], "input[0].type"),
        ([{"type": ["message"]}], "input[0].type"),
        ([{**CALL, "arguments": "[1]"}], "input[0].arguments"),
        ([{**CALL, "arguments": "[" * 100_000}], "input[0].arguments"),
        ([{"type": "function_call_output", "call_id": "x", "output": "y"}], "input[0].call_id"),
        ([{"type": "reasoning", "summary": [], "encrypted_content": "xyz"}], "input[0].encrypted_content"),
        ([{"role": "user", "content": "x"}] * 10_001, "input"),
    ],
)
def test_refused_inputs_are_named(given: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        messages_of(given)
    assert caught.value.param == param
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs"),
        ({"include": ["everything"]}, "include[0]"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"reasoning": {"effort": "fierce"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "custom", "name": "apply_patch"}]}, "tools[0]"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"stop": [""]}, "stop"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_refused_fields_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param


def test_tools_and_choices() -> None:
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]}
    other = {"type": "function", "name": "other"}
    call = parse(tools=[TOOL, other], tool_choice=allowed, parallel_tool_calls=False)
    assert call.request.tool_choice == ToolChoice(ToolMode.AUTO, ("weather",), is_parallel=False)
    assert [tool["function"]["name"] for tool in call.request.tools or []] == ["weather", "other"]
    named = parse(tools=[TOOL], tool_choice={"type": "function", "name": "weather"})
    assert named.request.tool_choice == ToolChoice(ToolMode.REQUIRED, ("weather",))


def test_formats_and_efforts() -> None:
    schema = {"type": "object"}
    grammar = parse(text={"format": {"type": "json_schema", "name": "x", "schema": schema}}).request.grammar
    assert grammar is not None
    assert (grammar.kind, grammar.source) == (GrammarKind.JSON_SCHEMA, '{"type":"object"}')
    assert parse(text={"format": {"type": "text"}, "verbosity": "medium"}).request.grammar is None
    assert parse(reasoning={"effort": "none"}).request.think is False
    assert parse(reasoning={"effort": "low"}).request.think == "low"


def test_what_codex_sends_is_taken() -> None:
    call = parse(
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        instructions="You are a coding agent.",
        tools=[{**TOOL, "strict": False}],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning=None,
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="0199-abc",
        client_metadata={"x": "y"},
    )
    assert call.stream
    assert not call.store


def test_a_lenient_server_passes_over_fields_of_a_choice() -> None:
    tools = [{"type": "function", "name": "f"}]
    chosen = {"type": "function", "name": "f", "colour": 1}
    ignored: list[str] = []
    call = parse_responses({"model": "m", "input": "hi", "tools": tools, "tool_choice": chosen}, ignored)
    assert (call.request.tool_choice.names, ignored) == (("f",), ["tool_choice.colour"])
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [chosen]}
    parse_responses({"model": "m", "input": "hi", "tools": tools, "tool_choice": allowed}, ignored)
    assert ignored[1:] == ["tool_choice.tools[0].colour"]
    with pytest.raises(InvalidRequest, match=r"unknown field tool_choice\.colour"):
        parse_responses({"model": "m", "input": "hi", "tools": tools, "tool_choice": chosen})
