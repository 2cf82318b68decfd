from __future__ import annotations

from typing import Any

import pytest

from corral.cli.parameters import PARAMETERS, check_range, parse_parameter
from corral.errors import InvalidRequest
from corral.protocol.ollama.options import check_options


@pytest.mark.parametrize(
    ("name", "values", "value"),
    [
        ("temperature", ["0.5"], 0.5),
        ("top_k", ["7"], 7),
        ("num_predict", ["-1"], -1),
        ("stop", ["a", "b"], ["a", "b"]),
    ],
)
def test_values(name: str, values: list[str], value: Any) -> None:
    assert parse_parameter(name, values) == value


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("warmth", ["1"], "unknown parameter 'warmth'; there are seed, "),
        ("top_k", ["1.5"], "parameter 'top_k' is '1.5'; it must be a whole number"),
        ("top_k", ["1", "2"], "parameter 'top_k' takes one value, not 2"),
        ("temperature", ["nan"], "temperature is nan"),
        ("repeat_penalty", ["-1"], "repetition_penalty is -1.0"),
    ],
)
def test_what_is_no_value(name: str, values: list[str], error: str) -> None:
    with pytest.raises(InvalidRequest, match="(?s)^" + error.replace(".", r"\.")):
        parse_parameter(name, values)


def test_the_server_knows_every_one_of_them() -> None:
    values: dict[type, Any] = {int: 1, float: 1.0, list: ["x"]}
    options = {name: values[kind] for name, (kind, _words) in PARAMETERS.items()}
    assert check_options(options) == options


def test_what_has_no_range_is_not_checked() -> None:
    check_range("num_ctx", -5)
