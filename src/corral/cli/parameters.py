"""Parameters of an answer by Ollama's names: how they are written, and what they mean to the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    "presence_penalty": (float, "Penalize tokens that are in the answer already"),
    "frequency_penalty": (float, "Penalize tokens by how often they are in the answer"),
    "stop": (list, "Set the stop parameters"),
}
_DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
_RENAMED = {"repeat_penalty": "repetition_penalty", "num_predict": "max_tokens"}
_SAME = ("temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty", "seed")


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
        return kind(values[0])
    except ValueError as error:
        wanted = "whole number" if kind is int else "number"
        raise InvalidRequest(f"parameter '{name}' is {values[0]!r}; it must be a {wanted}", param=name) from error


def sampling_of(options: Mapping[str, Any]) -> SamplingParams:
    """The sampling that `options` ask for; what they leave open is as Ollama does it. Names of others are ignored.

    Raises:
        InvalidRequest: names the value that is not allowed.
    """
    chosen = {**_DEFAULTS, **options}
    fields = {name: chosen[name] for name in _SAME if name in chosen}
    fields |= {ours: chosen[theirs] for theirs, ours in _RENAMED.items() if theirs in chosen}
    for name in ("max_tokens", "seed"):  # below zero: no limit, a fresh one
        if isinstance(value := fields.get(name), int) and value < 0:
            fields[name] = None
    stop = chosen.get("stop", ())
    return SamplingParams(stop=(stop,) if isinstance(stop, str) else tuple(stop), **fields)
