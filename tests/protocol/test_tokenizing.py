from __future__ import annotations

from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.protocol.tokenizing import encode_tokens, parse_detokenize, parse_tokenize
from corral.request import Detokenized, RenderedPrompt

MESSAGES = [{"role": "user", "content": "hi"}]


def test_a_text() -> None:
    call = parse_tokenize({"model": "m", "prompt": "a"})
    assert (call.request.prompt, call.request.add_special_tokens, call.with_texts) == ("a", True, False)
    call = parse_tokenize({"model": "m", "prompt": "", "add_special_tokens": False, "return_token_strs": True})
    assert (call.request.prompt, call.request.add_special_tokens, call.with_texts) == ("", False, True)


def test_a_chat_is_read_as_the_chat_route_reads_it() -> None:
    neutral = {"add_generation_prompt": True, "continue_final_message": False, "tools": [], "chat_template_kwargs": {}}
    call = parse_tokenize({"model": "m", "messages": MESSAGES, "add_special_tokens": False, **neutral})
    assert call.request.messages == MESSAGES
    assert (call.request.add_generation_prompt, call.request.continue_final_message) == (True, False)
    call = parse_tokenize({"model": "m", "messages": MESSAGES, "continue_final_message": True})
    assert (call.request.add_generation_prompt, call.request.continue_final_message) == (False, True)
    kwargs = {"enable_thinking": False}
    call = parse_tokenize({"model": "m", "messages": MESSAGES, "chat_template_kwargs": kwargs})
    assert call.request.template_kwargs == kwargs
    with pytest.raises(InvalidRequest, match="role"):
        parse_tokenize({"model": "m", "messages": [{"role": "king", "content": "hi"}]})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": MESSAGES}, "prompt"),
        ({"prompt": [1]}, "prompt"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"prompt": "a", "tools": []}, "tools"),
        ({"prompt": "a", "continue_final_message": True}, "continue_final_message"),
        (
            {"messages": MESSAGES, "continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
        ),
        ({"messages": MESSAGES, "chat_template": "{{ 7 * 7 }}"}, "chat_template"),
        ({"messages": MESSAGES, "add_special_tokens": True}, "add_special_tokens"),
        ({"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
        ({"prompt": "a", "text": "b"}, "text"),
    ],
)
def test_what_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_tokenize({"model": "m", **fields})
    assert caught.value.param == param


def test_detokenize() -> None:
    assert parse_detokenize({"model": "m", "tokens": [1, 2]}).token_ids == [1, 2]
    assert parse_detokenize({"model": "m", "tokens": []}).token_ids == []
    for wrong, param in (([1, -1], "tokens[1]"), (["1"], "tokens[0]"), ([1 << 31], "tokens[0]"), ("1", "tokens")):
        with pytest.raises(InvalidRequest) as caught:
            parse_detokenize({"model": "m", "tokens": wrong})
        assert caught.value.param == param


def test_texts_of_tokens_that_are_parts_of_characters() -> None:
    rendered = RenderedPrompt("r", "é", [7, 8])
    answer = encode_tokens(rendered, Detokenized("r", "é", [b"\xc3", b"\xa9"]), 64)
    assert answer == {"count": 2, "max_model_len": 64, "tokens": [7, 8], "token_strs": ["\ufffd", "\ufffd"]}
    assert encode_tokens(rendered, None, 64)["token_strs"] is None
