from __future__ import annotations

import math
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.protocol.ollama.duration import parse_duration, parse_keep_alive
from corral.protocol.ollama.options import check_options, context_of, ignored_options, sampling_of
from corral.sampling_params import SamplingParams


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("300ms", 0.3),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("2h45m30.5s", 9930.5),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("100ns", 1e-7),
        ("-1m", -60.0),
        ("+1m", 60.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", 'time: invalid duration ""'),
        ("abc", 'time: invalid duration "abc"'),
        ("5", 'time: missing unit in duration "5"'),
        ("1h30", 'time: missing unit in duration "1h30"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("1..5s", 'time: missing unit in duration "1..5s"'),
        ("nan", 'time: invalid duration "nan"'),
        ("9" * 1000 + "h", f'time: invalid duration "{"9" * 100}"'),
    ],
)
def test_what_is_no_duration(text: str, fault: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_duration(text)
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (-1, math.inf),
        (-0.5, math.inf),
        ("-1s", math.inf),
        (10**400, math.inf),
        ("9999999999h", math.inf),
    ],
)
def test_keep_alive(value: Any, seconds: float | None) -> None:
    assert parse_keep_alive(value) == seconds


@pytest.mark.parametrize("value", [[], {}, False])
def test_what_no_keep_alive_can_be(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^Unsupported type: '"):
        parse_keep_alive(value)


def test_without_options_all_is_as_ollama_has_it() -> None:
    assert sampling_of({}) == SamplingParams(temperature=0.8, top_k=40, top_p=0.9, penalty_window=64)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"seed": -1}, {"seed": None}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": 42.0}, {"seed": 42}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": -1}, {"temperature": 0.0}),
        ({"top_k": -5}, {"top_k": 0}),
        ({"top_p": 2}, {"top_p": 1.0}),
        ({"top_p": 0}, {"top_p": 1e-9}),
        ({"min_p": 0.1}, {"min_p": 0.1}),
        ({"repeat_penalty": 1.3, "repeat_last_n": -1}, {"repetition_penalty": 1.3, "penalty_window": None}),
        ({"repeat_last_n": 0}, {"penalty_window": 0}),
        ({"presence_penalty": 1, "frequency_penalty": -1}, {"presence_penalty": 1.0, "frequency_penalty": -1.0}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"num_predict": 7}, {"max_tokens": 7}),
        ({"num_predict": 0}, {"max_tokens": 1}),
        ({"num_predict": -1}, {"max_tokens": None}),
        ({"num_predict": -2, "num_ctx": 16}, {"max_tokens": 160}),
        ({"num_predict": 1000, "num_ctx": 16}, {"max_tokens": 160}),
        ({"temperature": None, "stop": None}, {"temperature": 0.8, "stop": ()}),
    ],
)
def test_options(options: dict[str, Any], fields: dict[str, Any]) -> None:
    params = sampling_of(check_options(options))
    assert {name: getattr(params, name) for name in fields} == fields


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": "5"},
        {"top_k": 1.5},
        {"seed": True},
        {"num_ctx": float("inf")},
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"top_p": 10**400},
        {"num_gpu": "all"},
        {"f16_kv": "yes"},
        {"stop": "x"},
        {"stop": [["x"]]},
    ],
)
def test_wrong_types_are_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(InvalidRequest, match=f'^option "{name}" must be of ') as caught:
        check_options(options)
    assert caught.value.param == f"options.{name}"


@pytest.mark.parametrize("options", [{"repeat_penalty": 0}, {"temperature": 1e9}, {"num_predict": 1 << 40}])
def test_what_no_sampler_can_obey_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        sampling_of(check_options(options))


def test_the_context_has_a_floor() -> None:
    assert [context_of(options) for options in ({}, {"num_ctx": 0}, {"num_ctx": 4096})] == [None, 4, 4096]


def test_ignored_names_fit_into_a_header() -> None:
    names = ignored_options({"top_k": 1, "mirostat": 2, "a b": 1, "é": 1, "x" * 65: 1, "tfs_z": 1})
    assert names == ("mirostat", "?", "tfs_z")
    assert len(ignored_options({f"o{number}": 1 for number in range(1000)})) == 32
