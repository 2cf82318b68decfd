"""Every numeric field against what JSON, and Python, can write in its place."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import InvalidRequest
from corral.protocol.openai.chat import parse_chat
from corral.protocol.openai.completions import parse_completion

COMMON = (
    *("n", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "max_tokens", "min_tokens", "prompt_logprobs", "truncate_prompt_tokens", "priority", "length_penalty"),
)
CHAT = (*COMMON, "max_completion_tokens", "top_logprobs", "thinking_token_budget")
COMPLETION = (*COMMON, "logprobs", "best_of")
ANYTHING = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 10**400, -(10**400), 1 << 63, True, "1", [], {}]),
)


def check(parse: Any, body: dict[str, Any], name: str) -> None:
    refusal: InvalidRequest | None = None
    try:
        parse(body)
    except InvalidRequest as error:
        refusal = error
    if refusal is not None:
        assert refusal.param in (name, "min_tokens", "n")  # fields that are compared name the other one
        assert len(refusal.message) < 400


@pytest.mark.parametrize("name", CHAT)
@settings(max_examples=30, deadline=None)
@given(value=ANYTHING)
def test_chat(name: str, value: Any) -> None:
    messages = [{"role": "user", "content": "hi"}]
    check(parse_chat, {"model": "m", "messages": messages, "logprobs": True, name: value}, name)


@pytest.mark.parametrize("name", COMPLETION)
@settings(max_examples=30, deadline=None)
@given(value=ANYTHING)
def test_completions(name: str, value: Any) -> None:
    check(parse_completion, {"model": "m", "prompt": "hi", name: value}, name)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", CHAT)
def test_what_is_not_finite_is_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat({"model": "m", "messages": [{"role": "user", "content": "hi"}], name: value})
    assert caught.value.param == name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e9])
def test_biases_too(value: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_completion({"model": "m", "prompt": "hi", "logit_bias": {"5": value}})
    assert (caught.value.param or "").startswith("logit_bias")
