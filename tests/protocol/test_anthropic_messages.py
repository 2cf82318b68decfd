from __future__ import annotations

from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.grammar import GrammarKind
from corral.protocol.anthropic.messages import MessagesCall, parse_count, parse_create
from corral.tool_call import ToolChoice, ToolMode

WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": {"type": "object", "properties": {}}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def body(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": list(messages) or [user("hi")], **fields}


def parse(*messages: dict[str, Any], **fields: Any) -> MessagesCall:
    return parse_create(body(*messages, **fields), {})


def test_what_is_asked_for_by_default() -> None:
    call = parse(user("hi"))
    request = call.request
    assert request.request_id.startswith("msg_")
    assert request.messages == [{"role": "user", "content": "hi"}]
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.n) == (100, 1.0, 1)
    assert (request.tools, request.grammar, request.think, request.thinking_budget) == (None, None, None, None)
    assert request.add_generation_prompt
    assert (request.continue_final_message, call.stream) == (False, False)


def test_sampling_and_a_modelfiles_parameters() -> None:
    defaults = {"temperature": 0.3, "top_p": 0.5, "min_p": 0.1, "stop": ("END",), "max_tokens": 7, "seed": None}
    call = parse_create(body(temperature=0, top_k=3, stop_sequences=["a", "b"]), defaults)
    sampling = call.request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0, 3, 0.5, 0.1)
    assert (sampling.stop, call.stop_sequences, sampling.max_tokens) == (("a", "b"), ("a", "b"), 100)
    quiet = parse_create(body(stop_sequences=[]), defaults)
    assert (quiet.request.sampling.stop, quiet.stop_sequences) == (("END",), ())


def test_a_conversation_with_tools() -> None:
    ephemeral = {"type": "ephemeral"}
    call = parse(
        user([{"type": "text", "text": "a", "cache_control": ephemeral}, {"type": "text", "text": "b"}]),
        assistant(
            [
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "Let me look.", "citations": None},
                {**USE, "caller": {"type": "direct"}},
            ]
        ),
        user(
            [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no net", "is_error": True},
                {"type": "tool_result", "tool_use_id": "toolu_1"},
                {"type": "text", "text": "And?"},
            ]
        ),
        system=[{"type": "text", "text": "Be brief.", "cache_control": ephemeral}, {"type": "text", "text": "Now."}],
    )
    tool = {"role": "tool", "tool_call_id": "toolu_1", "name": "weather", "tool_name": "weather"}
    function = {"name": "weather", "arguments": {"city": "Oslo"}}
    assert call.request.messages == [
        {"role": "system", "content": "Be brief.\nNow."},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "thinking": "hm",
            "tool_calls": [{"type": "function", "id": "toolu_1", "function": function}],
        },
        {**tool, "content": "rain"},
        {**tool, "content": "Error: no net"},
        {**tool, "content": ""},
        {"role": "user", "content": "And?"},
    ]


def test_turns_of_one_role_are_one_turn() -> None:
    thought = {"type": "thinking", "thinking": "t"}
    turns = (user("a"), user("b"), assistant("c"), assistant([thought, USE]), user([RESULT]), user("d"))
    messages = parse(*turns).request.messages or []
    assert [(m["role"], m["content"]) for m in messages] == [
        ("user", "a\nb"),
        ("assistant", "c"),
        ("tool", "1"),
        ("user", "d"),
    ]
    assert (messages[1]["thinking"], len(messages[1]["tool_calls"])) == ("t", 1)


def test_an_assistants_message_at_the_end_is_gone_on_with() -> None:
    request = parse(user("a"), assistant("The answer is (")).request
    assert (request.continue_final_message, request.add_generation_prompt) == (True, False)
    assert (request.messages or [])[-1] == {"role": "assistant", "content": "The answer is ("}
    empty = parse(user("a"), assistant("")).request
    assert (empty.continue_final_message, len(empty.messages or [])) == (False, 1)


def test_a_system_message_in_between() -> None:
    messages = parse(user("a"), {"role": "system", "content": [{"type": "text", "text": "b"}]}, user("c")).request
    assert [m["role"] for m in messages.messages or []] == ["user", "system", "user"]


def test_tools() -> None:
    tools = [WEATHER, {"type": "custom", "name": "add", "input_schema": {"type": "object"}, "strict": True,
                       "eager_input_streaming": True, "cache_control": {"type": "ephemeral"}}]  # fmt: skip
    call = parse(tools=tools, tool_choice={"type": "auto"})
    assert call.request.tools == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Of a city.", "parameters": WEATHER["input_schema"]},
        },
        {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}, "strict": True}},
    ]
    assert call.eager_tools == {"add"}


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        (None, ToolChoice()),
        ({"type": "auto"}, ToolChoice()),
        ({"type": "none"}, ToolChoice(ToolMode.NONE)),
        ({"type": "any"}, ToolChoice(ToolMode.REQUIRED)),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice(ToolMode.REQUIRED, is_parallel=False)),
        ({"type": "tool", "name": "weather"}, ToolChoice(ToolMode.REQUIRED, ("weather",))),
    ],
)
def test_tool_choices(given: Any, choice: ToolChoice) -> None:
    assert parse(tools=[WEATHER], tool_choice=given).request.tool_choice == choice


@pytest.mark.parametrize(
    ("fields", "think", "budget"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 50}}, True, 50),
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"thinking": {"type": "adaptive"}}, None, None),
        ({"output_config": {"effort": "low"}}, "low", None),
        ({"output_config": {"effort": "xhigh"}, "thinking": {"type": "adaptive"}}, "high", None),
        ({"output_config": {"effort": "max"}, "thinking": {"type": "enabled", "budget_tokens": 9}}, "max", 9),
        ({"output_config": {"effort": "max"}, "thinking": {"type": "disabled"}}, False, None),
    ],
)
def test_thinking(fields: Any, think: Any, budget: int | None) -> None:
    request = parse(**fields).request
    assert (request.think, request.thinking_budget) == (think, budget)


def test_a_model_that_cannot_think_need_not() -> None:
    call = parse(thinking={"type": "enabled", "budget_tokens": 50, "display": "omitted"}).without_thinking()
    assert (call.request.think, call.request.thinking_budget, call.ignored) == (None, None, ("thinking",))
    assert not call.shows_thinking
    off = parse(thinking={"type": "disabled"})
    assert off.without_thinking() is off


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_structured_output(name: str) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    grammar = parse(**{name: {"format": form} if name == "output_config" else form}).request.grammar
    assert grammar is not None
    assert (grammar.kind, grammar.source) == (GrammarKind.JSON_SCHEMA, '{"type":"object"}')


def test_what_says_nothing_passes() -> None:
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    parse(metadata={"user_id": "u"}, service_tier="auto", cache_control={"type": "ephemeral"}, container=None,
          mcp_servers=[], context_management=edits, speed="standard")  # fmt: skip


def test_counting_wants_no_max_tokens() -> None:
    fields: dict[str, Any] = {"model": "m", "messages": [user("hi")], "tools": [WEATHER], "system": "s"}
    request = parse_count(fields).request
    assert request.sampling.max_tokens is None
    assert [m["role"] for m in request.messages or []] == ["system", "user"]
    with pytest.raises(InvalidRequest, match="max_tokens"):
        parse_create(fields, {})


@pytest.mark.parametrize(
    ("fields", "param", "text"),
    [
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0"),
        ({"max_tokens": None}, "max_tokens", "null"),
        ({"max_tokens": 1 << 40}, "max_tokens", "whole number from 1"),
        ({"temperature": 1.5}, "temperature", "from 0 to 1"),
        ({"temperature": float("nan")}, "temperature", "finite number"),
        ({"top_p": float("inf")}, "top_p", "finite number"),
        ({"top_p": -1}, "top_p", "above 0"),
        ({"top_k": -2}, "top_k", "top_k"),
        ({"top_k": 1.5}, "top_k", "whole number"),
        ({"stream": 1}, "stream", "true or false"),
        ({"stop_sequences": ["a", 5]}, "stop_sequences[1]", "not empty"),
        ({"stop_sequences": [""]}, "stop_sequences[0]", "not empty"),
        ({"stop_sequences": ["a"] * 17}, "stop", "at most 16"),
        ({"messages": []}, "messages", "from 1 to"),
        ({"messages": [user("a")] * 10_001}, "messages", "at most|from 1 to 10000"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role", "'robot'"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages", "of the user"),
        ({"messages": [user("")]}, "messages[0].content", "empty"),
        ({"messages": [user(5)]}, "messages[0].content", "string or a list of blocks"),
        ({"messages": [user(["a"])]}, "messages[0].content[0]", "must be an object"),
        ({"messages": [user([{"type": "image", "source": {}}])]}, "messages[0].content[0]", "'image'.*not supported"),
        ({"messages": [user([{"type": "document"}])]}, "messages[0].content[0]", "'document'.*not supported"),
        ({"messages": [user([USE])]}, "messages[0].content[0]", "not allowed here"),
        ({"messages": [user([{"type": "text", "text": "a", "x": 1}])]}, "messages[0].content[0].x", "unknown field"),
        ({"messages": [user([{**RESULT, "tool_use_id": "t"}])]}, "messages[0].content[0].tool_use_id", "no tool_use"),
        ({"messages": [user("a"), assistant([USE])]}, "messages", "tool_result must follow"),
        ({"system": 5}, "system", "a string or a list"),
        ({"system": [{"type": "image"}]}, "system[0]", "'image'"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]", "web_search_20250305"),
        ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "tools[0].name", "letters"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema", "required"),
        ({"tools": [{"name": "a", "input_schema": {}}]}, "tools[0].input_schema.type", "'object'"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name", "earlier tool"),
        ({"tools": [{**WEATHER, "defer_loading": True}]}, "tools[0].defer_loading", "not supported"),
        ({"tools": [{**WEATHER, "allowed_callers": ["code"]}]}, "tools[0].allowed_callers", "not supported"),
        ({"tools": [WEATHER] * 1025}, "tools", "at most 1024"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "no tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name", "one of the tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "must"}}, "tool_choice.type", "one of"),
        ({"tools": [WEATHER], "tool_choice": "auto"}, "tool_choice", "object"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "required"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "thinking.budget_tokens", "less than max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens", "1 at least"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 5}}, "thinking.budget_tokens", "only allowed"),
        ({"thinking": {"type": "maybe"}}, "thinking.type", "one of"),
        ({"thinking": {"type": "adaptive", "display": "loud"}}, "thinking.display", "omitted"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort", "one of"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type", "json_schema"),
        ({"output_format": {"type": "json_schema"}}, "output_format", "schema"),
        ({"mcp_servers": [{}]}, "mcp_servers", "not supported"),
        ({"container": "c"}, "container", "not supported"),
        ({"context_management": {"edits": [{"type": "compact"}]}}, "context_management", "not supported"),
        ({"max_token": 5}, "max_token", "did you mean max_tokens"),
    ],
)  # fmt: skip
def test_what_is_refused(fields: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text) as caught:
        parse_create(body(**fields), {})
    assert caught.value.param == param


def test_a_prefilled_answer_has_no_format() -> None:
    form = {"type": "json_schema", "schema": {}}
    with pytest.raises(InvalidRequest, match="cannot go on"):
        parse(user("a"), assistant("b"), output_format=form)
    with pytest.raises(InvalidRequest, match="not both"):
        parse(output_format=form, output_config={"format": form})


def test_a_lenient_server_leaves_out_what_it_does_not_know() -> None:
    ignored: list[str] = []
    fields = body(
        user([{"type": "text", "text": "a", "x": 1}]),
        y=2,
        system=[{"type": "text", "text": "s", "z": 3}],
        tools=[{**WEATHER, "t": 4}],
        tool_choice={"type": "auto", "u": 5},
        thinking={"type": "adaptive", "v": 6},
        output_config={"w": 7},
    )
    request = parse_create(fields, {}, ignored).request
    assert [m["content"] for m in request.messages or []] == ["s", "a"]
    expected = ["y", "messages[0].content[0].x", "system[0].z", "tools[0].t", "tool_choice.u", "thinking.v"]
    assert sorted(ignored) == sorted([*expected, "output_config.w"])
    with pytest.raises(InvalidRequest, match="mcp_servers is not supported"):
        parse_create({**fields, "mcp_servers": [{}]}, {}, ignored)
