"""What multiplies the work of a request is bounded before anything is made of it, on every protocol."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.protocol.anthropic.messages import parse_create
from corral.protocol.openai.chat import parse_chat
from corral.protocol.openai.completions import parse_completion
from corral.protocol.responses.call import parse_responses

HUGE = 1 << 62
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", HUGE),
        ("max_tokens", -1),
        ("min_tokens", HUGE),
        ("stop", ["x"] * 10_000),
        ("stop", "x" * 100_000),
        ("stop_token_ids", [1] * 100_000),
        ("bad_words", ["x"] * 10_000),
        ("logit_bias", {str(i): 1 for i in range(100_000)}),
        ("logit_bias", {"1": HUGE}),
        ("allowed_token_ids", [1] * 1_000_000),
        ("top_k", -HUGE),
        ("prompt_logprobs", HUGE),
        ("cache_salt", "x" * 100_000),
        ("guided_choice", ["x"] * 100_000),
        ("guided_regex", "x" * 10_000_000),
    ],
)
def test_counts_are_bounded(field: str, value: Any) -> None:
    for parse, body in ((parse_chat, CHAT), (parse_completion, {"model": "m", "prompt": "hi"})):
        with pytest.raises(InvalidRequest) as caught:
            parse({**body, field: value})
        assert (caught.value.param or "").startswith(field)
        assert len(caught.value.message) < 500


def test_counts_of_the_other_protocols_are_bounded() -> None:
    with pytest.raises(InvalidRequest):
        parse_create({**CHAT, "max_tokens": 5, "stop_sequences": ["x"] * 10_000}, {})
    with pytest.raises(InvalidRequest):
        parse_create({**CHAT, "max_tokens": 5, "tools": [{"name": "f", "input_schema": {}}] * 100_000}, {})
    with pytest.raises(InvalidRequest):
        parse_responses({"model": "m", "input": [{"role": "user", "content": "hi"}] * 100_000})
    with pytest.raises(InvalidRequest):
        parse_responses({"model": "m", "input": "hi", "top_logprobs": HUGE})
    with pytest.raises(InvalidRequest):
        parse_responses({"model": "m", "input": "hi", "tools": [{"type": "function", "name": "f"}] * 100_000})
