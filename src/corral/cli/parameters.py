"""Parameters of an answer by Ollama's names, as a person writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corral.errors import InvalidRequest
from corral.sampling_params import SamplingParams

# name: (type, words of the help). A list's values may be given one after another, or one at a time.
PARAMETERS: dict[str, tuple[type, str]] = {
    "seed": (int, "Random number seed"),
    "num_predict": (int, "Max number of tokens to predict"),
    "top_k": (int, "Pick from top k num of tokens"),
    "top_p": (float, "Pick token based on sum of probabilities"),
    "min_p": (float, "Pick token based on top token probability * min_p"),
    "num_ctx": (int, "Set the context size"),
    "temperature": (float, "Set creativity level"),
    "repeat_penalty": (float, "How strongly to penalize repetitions"),
    "repeat_last_n": (int, "Set how far back to look for repetitions"),
    "presence_penalty": (float, "Penalize tokens that are in the answer already"),
    "frequency_penalty": (float, "Penalize tokens by how often they are in the answer"),
    "stop": (list, "Set the stop parameters"),
}
_RENAMED = {"repeat_penalty": "repetition_penalty"}
_CHECKED = (
    *("temperature", "top_k", "top_p", "min_p", "seed"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)


def parse_parameter(name: str, values: Sequence[str]) -> Any:
    """The words after a parameter's name as its value.

    Raises:
        InvalidRequest: no such parameter, or no such value; says what there is.
    """
    if name not in PARAMETERS:
        raise InvalidRequest(f"unknown parameter '{name}'; there are {', '.join(PARAMETERS)}", param=name)
    kind = PARAMETERS[name][0]
    if kind is list:
        return list(values)
    if len(values) != 1:
        raise InvalidRequest(f"parameter '{name}' takes one value, not {len(values)}", param=name)
    try:
        value = kind(values[0])
    except ValueError as error:
        wanted = "whole number" if kind is int else "number"
        raise InvalidRequest(f"parameter '{name}' is {values[0]!r}; it must be a {wanted}", param=name) from error
    check_range(name, value)
    return value


def check_range(name: str, value: Any) -> None:
    """Servers bend a value that is out of range, as Ollama does; a person is told.

    Raises:
        InvalidRequest: names the value and what is allowed.
    """
    field = _RENAMED.get(name, name)
    if field in _CHECKED:
        SamplingParams(**{field: value})
