from __future__ import annotations

import pytest

from corral.errors import InvalidRequest
from corral.limits import MAX_CONTAINERS, MAX_DEPTH, MAX_VALUES
from corral.protocol.json_body import parse_json_body


def test_plain_object() -> None:
    assert parse_json_body(b'{"a": [1, 2.5, "x"], "b": null}') == {"a": [1, 2.5, "x"], "b": None}


def test_brackets_commas_and_quotes_inside_strings_do_not_count() -> None:
    text = "[{" * (MAX_DEPTH + 1) + '\\\\ \\" , ' + "]" * 5
    assert parse_json_body(('{"a": "' + text + '"}').encode())["a"].startswith("[{[{")


def test_escaped_backslash_before_the_closing_quote() -> None:
    nested = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    body = ('{"a": "x\\\\", "b": ' + nested + "}").encode()
    assert parse_json_body(body)["a"] == "x\\"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": -Infinity}', "not valid JSON"),
        (b'{"a": 1e999}', "not valid JSON"),
        (b'{"a": ' + b"9" * 6000 + b"}", "not valid JSON"),
        (b'{"a": "\xff\xfe"}', "UTF-8"),
        (b'{"\xc3(": 1}', "UTF-8"),
        (b'{"a": "\\ud800 lone surrogate"}', "not valid JSON"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", f"deeper than {MAX_DEPTH}"),
        (b"[" * 1_000_000, "more than"),
        (b'{"a": [' + b"[]," * (MAX_CONTAINERS + 1) + b"[]]}", "objects and lists"),
        (b'{"a": [' + b"1," * (MAX_VALUES + 1) + b"1]}", "values"),
        (b'{"a": [' + b'"",' * (MAX_VALUES // 2 + 1) + b'""]}', "strings"),
        (b"\x00\x01\x02", "not valid JSON"),
    ],
)
def test_hostile_bodies_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        parse_json_body(body)
    assert caught.value.code == "invalid_json"
    assert len(caught.value.message) < 200
