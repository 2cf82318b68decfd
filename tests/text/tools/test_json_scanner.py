from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.text.tools.json_scanner import MAX_DEPTH, JSONScanner, NotJSONError, read_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3))
NOISE = st.lists(st.sampled_from(["{", "}", "[", "]", ",", ":", '"', "\\", "u12", "1", "-", "e", "true", " ", "x"]))


def scan(text: str, *, by_character: bool) -> str | None:
    """The value that the text is, found in it; None if it is none. The end is told by a character that cannot be."""
    scanner = JSONScanner()
    found = ""
    try:
        for piece in [*text, "\x01"] if by_character else [text + "\x01"]:
            found += scanner.feed(piece, 0)[1]
    except NotJSONError:
        return None
    return found if scanner.is_done else None


@settings(max_examples=200, deadline=None)
@given(value=VALUES, ensure_ascii=st.booleans())
def test_what_is_json_is_found_whole(value: object, ensure_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii)
    assert scan(text, by_character=True) == scan(text, by_character=False) == text
    assert read_json(text) == value


@settings(max_examples=300, deadline=None)
@given(text=NOISE.map("".join))
def test_what_is_found_is_json(text: str) -> None:
    found = scan(text, by_character=True)
    assert found == scan(text, by_character=False)
    if found is not None:
        json.loads(found)


def test_nesting_is_limited() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert scan(text, by_character=False) == text
    assert scan(f"[{text}]", by_character=False) is None


@pytest.mark.parametrize("text", ["NaN", "1e999", '"\\udc00"', "9" * 5000, "[" * 100_000, "", "{'a': 1}"])
def test_what_nobody_could_read(text: str) -> None:
    with pytest.raises(NotJSONError):
        read_json(text)


def test_bare_control_characters_become_escapes() -> None:
    assert scan('"a\n\tb"', by_character=False) == '"a\\n\\tb"'
