from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.limits import MAX_INPUTS
from corral.protocol.openai.embeddings import encode_embeddings_answer, parse_embeddings_call
from corral.request import EmbedResult


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": "a", **fields}


@pytest.mark.parametrize(
    ("value", "inputs"),
    [("a", ["a"]), ("", [""]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_every_form_of_input(value: Any, inputs: list[Any]) -> None:
    request = parse_embeddings_call(body(input=value)).request(None)
    assert request.inputs == inputs
    assert (request.truncate, request.dimensions, request.max_context) == (False, None, None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [1, "a"]}, "input[1]"),
        ({"input": [True]}, "input"),
        ({"input": [[1], [-1]]}, "input[1][0]"),
        ({"input": [1 << 31]}, "input[0]"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 1 << 70}, "dimensions"),
        ({"dimensions": 2.0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": 1}, "encoding_format"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 1 << 70}, "truncate_prompt_tokens"),
        ({"messages": []}, "messages"),
        ({"normalize": False}, "normalize"),
        ({"inputs": "a"}, "inputs"),
    ],
)
def test_what_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_embeddings_call(body(**fields))
    assert caught.value.param == param


def test_what_changes_nothing_is_taken() -> None:
    call = parse_embeddings_call(body(user="u", normalize=True, add_special_tokens=True, encoding_format="float"))
    assert not call.as_base64


@pytest.mark.parametrize(
    ("asked", "num_ctx", "truncate", "max_context"),
    [(None, None, False, None), (None, 64, False, 64), (-1, 64, True, 64), (8, 64, True, 8), (99, 64, True, 64)],
)
def test_truncation(asked: int | None, num_ctx: int | None, truncate: bool, max_context: int | None) -> None:
    request = parse_embeddings_call(body(truncate_prompt_tokens=asked)).request(num_ctx)
    assert (request.truncate, request.max_context) == (truncate, max_context)


def test_both_encodings_hold_the_same_values() -> None:
    values = (0.5, -0.25, 1e-8)
    result = EmbedResult("r", [struct.pack("<3f", *values)] * 2, 7)
    plain = encode_embeddings_answer(parse_embeddings_call(body()), result, "m")
    packed = encode_embeddings_answer(parse_embeddings_call(body(encoding_format="base64")), result, "m")
    assert [entry["index"] for entry in plain["data"]] == [0, 1]
    assert plain["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    decoded = struct.unpack("<3f", base64.b64decode(packed["data"][1]["embedding"]))
    assert list(decoded) == plain["data"][1]["embedding"]
    assert decoded == pytest.approx(values)
