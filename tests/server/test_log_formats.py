"""No text that a client can write makes two lines of one, in either form of the log."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.logs import LogLine
from corral.server.logs.formats import encode_json, encode_text, printable

NASTY = "a\nb\r\nc\x0b\x0c\x1b[31m\x85\u2028\u2029\u202e\x00\x9b1m\ud800end"


def line(message: str = "hello", **others: Any) -> LogLine:
    return LogLine(1795452615.25, others.pop("level", "info"), "corral.server", message, **others)


def test_json_has_what_programs_look_for() -> None:
    told = json.loads(encode_json(line(request_id="req_1", exception="a\nb", fields={"status": 200, "key": "ci"})))
    assert told == {
        "ts": "2026-11-23T16:50:15.250000Z",
        "level": "info",
        "logger": "corral.server",
        "message": "hello",
        "request_id": "req_1",
        "exception": "a\nb",
        "status": 200,
        "key": "ci",
    }
    assert set(json.loads(encode_json(line()))) == {"ts", "level", "logger", "message"}


def test_fields_do_not_replace_what_every_line_has() -> None:
    told = json.loads(encode_json(line(fields={"level": "debug", "ts": "never", "x": 1})))
    assert (told["level"], told["ts"][:4], told["x"]) == ("info", "2026", 1)


@pytest.mark.parametrize("value", [1 << 80, math.nan, math.inf, b"\xff", {1: NASTY}, [object], NASTY, None])
def test_json_takes_any_value(value: object) -> None:
    encoded = encode_json(line(fields={"value": value}))
    assert len(encoded.splitlines()) == 1
    assert "value" in json.loads(encoded)


@given(st.text(), st.text(), st.text(st.characters(), max_size=20))
def test_json_is_one_line_of_printable_text(message: str, exception: str, name: str) -> None:
    encoded = encode_json(line(message, exception=exception, fields={name: message}))
    assert encoded.splitlines() == [encoded[:-1]]
    assert not re.search("[\x00-\x1f\x7f-\x9f]", encoded[:-1])
    told = json.loads(encoded)
    assert told["message"].encode("utf-8", "surrogatepass") == message.encode("utf-8", "surrogatepass")


def test_text_is_short() -> None:
    [told] = encode_text(line(request_id="req_1", fields={"not": "told"})).splitlines()
    assert re.fullmatch(r"2026-11-2\d \d\d:\d\d:\d\d hello \[req_1\]", told)
    [told] = encode_text(line(level="warning")).splitlines()
    assert told.endswith(" warning: hello")


@given(st.text(), st.text())
def test_nothing_but_an_event_begins_a_line_of_text(message: str, exception: str) -> None:
    first, *rest = encode_text(line(message, exception=exception))[:-1].splitlines() or [""]
    assert first.startswith("2026-11-2")
    assert all(each.startswith("    ") for each in rest)


def test_printable_is_one_line() -> None:
    told = printable(NASTY)
    assert told.isprintable()
    assert told.startswith("a\\nb\\r\\nc")
