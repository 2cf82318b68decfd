"""What a request's grammar, tools and thinking come to, together."""

from __future__ import annotations

import re
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.grammar import Grammar, GrammarKind
from corral.request import Request
from corral.sampling_params import SamplingParams
from corral.text.reasoning import Markers
from corral.text.tools.detect import HERMES
from corral.tool_call import ToolChoice, ToolMode
from corral.worker.constraining import Constraining
from corral.worker.prompting import Prompt
from tests.text.grammar_walk import BYTE_LEVEL, EXTRA_LOGITS, allowed_ids, walk

CONSTRAINING = Constraining(BYTE_LEVEL, BYTE_LEVEL.vocab_size + EXTRA_LOGITS)
YES = Grammar(GrammarKind.CHOICE, '["yes"]')
AGE = {"type": "object", "properties": {"age": {"enum": [1, 2]}}, "required": ["age"], "additionalProperties": False}
REQUIRED = ToolChoice(ToolMode.REQUIRED, is_parallel=False)

ONE = ToolChoice(is_parallel=False)


def tool(parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters, **more}}


def constraint(prompt: dict[str, Any] | None = None, **fields: Any) -> Any:
    request = Request("id", messages=[{"role": "user", "content": "x"}], **fields)
    return CONSTRAINING.constraint_for(request, Prompt([1], SamplingParams(), **(prompt or {})))


def answer(made: Any, seed: int) -> str:
    ids, is_whole = walk(made, BYTE_LEVEL, seed, 500)
    assert is_whole
    return BYTE_LEVEL.decode(ids)


def test_most_requests_have_none() -> None:
    assert constraint() is None
    assert constraint(thinking_budget=5) is None  # a model that does not think
    assert constraint({"tool_style": HERMES}, tools=[tool(AGE)]) is None


def test_a_required_call_is_one() -> None:
    made = constraint({"tool_style": HERMES}, tools=[tool(AGE)], tool_choice=REQUIRED, grammar=YES)
    assert re.match(r'<tool_call>\s*\{"name": "f", "arguments": \{\s*"age"', answer(made, 1))


def test_calls_or_the_answer() -> None:
    texts = set()
    for seed in range(30):
        texts.add(answer(constraint({"tool_style": HERMES}, tools=[tool(AGE)], tool_choice=ONE, grammar=YES), seed)[:3])
    assert texts == {"yes", "<to"}


def test_thinking_comes_before_either() -> None:
    prompt = {"markers": Markers("<think>", "</think>"), "is_thinking": True, "tool_style": HERMES}
    made = constraint(prompt, tools=[tool(AGE)], tool_choice=REQUIRED, thinking_budget=0)
    ids = BYTE_LEVEL.encode("</think>", add_special=False, parse_special=True)
    for token_id in ids:
        assert allowed_ids(made, BYTE_LEVEL) == [token_id]
        made.accept(token_id)
    assert answer(made, 1).lstrip().startswith("<tool_call>")


def test_a_strict_tool_is_enforced_in_full_or_refused() -> None:
    odd = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    assert constraint({"tool_style": HERMES}, tools=[tool(odd)], tool_choice=REQUIRED) is not None
    with pytest.raises(InvalidRequest, match="uniqueItems") as refusal:
        constraint({"tool_style": HERMES}, tools=[tool(odd, strict=True)], tool_choice=REQUIRED)
    assert refusal.value.param == "tools"


def test_a_hostile_tool_pattern_ends_its_own_request_only() -> None:
    bad = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}
    with pytest.raises(InvalidRequest) as refusal:
        constraint({"tool_style": HERMES}, tools=[tool(bad)], tool_choice=REQUIRED)
    assert refusal.value.param == "tools"
    assert answer(constraint(grammar=YES), 0) == "yes"


def test_a_call_cannot_be_required_of_a_model_without_tools() -> None:
    with pytest.raises(InvalidRequest, match="not known") as refusal:
        constraint(tools=[tool(AGE)], tool_choice=REQUIRED)
    assert refusal.value.param == "tool_choice"
