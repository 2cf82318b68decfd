"""Ollama's `options` and a Modelfile's PARAMETERs -> SamplingParams, with Ollama's defaults. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from corral.errors import InvalidRequest
from corral.model_parameters import FLOATS, INTEGERS, TEXTS, UNUSED_BOOLEANS, UNUSED_FLOATS, UNUSED_INTEGERS
from corral.sampling_params import SamplingParams

NUM_PREDICT_CONTEXTS = 10  # an endless answer ends after this many contexts
MIN_CONTEXT = 4
MAX_IGNORED = 32  # names told in one response header
_MAX_FLOAT = 3.4e38  # of float32

DEFAULTS: dict[str, Any] = {
    "frequency_penalty": 0.0,
    "min_p": 0.0,
    "num_predict": -1,
    "presence_penalty": 0.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.0,
    "seed": -1,
    "stop": [],
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
}
_HEADER_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value, each of Ollama's type.

    Raises:
        InvalidRequest: a wrong type, in Ollama's words.
    """
    return {name: _check(name, value) for name, value in options.items() if value is not None}


def ignored_options(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the options given that change nothing here, fit for a header: unknown ones and those of Ollama's runner.

    A name that no header can carry shows as "?".
    """
    used = INTEGERS | FLOATS | TEXTS
    names = [name if _HEADER_SAFE.fullmatch(name) else "?" for name in options if name not in used]
    return tuple(dict.fromkeys(names))[:MAX_IGNORED]


def _check(name: str, value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in INTEGERS | UNUSED_INTEGERS:
        if not is_number or value != value // 1:
            _refuse(name, "integer")
        return int(value)
    if name in FLOATS | UNUSED_FLOATS:
        if not is_number or not abs(value) <= _MAX_FLOAT:
            _refuse(name, "float32")
        return float(value)
    if name in UNUSED_BOOLEANS and not isinstance(value, bool):
        _refuse(name, "boolean")
    if name in TEXTS:
        if not isinstance(value, list):
            _refuse(name, "array")
        if not all(isinstance(item, str) for item in value):
            raise InvalidRequest(f'option "{name}" must be of an array of strings', param=f"options.{name}")
    return value


def _refuse(name: str, wanted: str) -> None:
    raise InvalidRequest(f'option "{name}" must be of type {wanted}', param=f"options.{name}")


def context_of(options: Mapping[str, Any]) -> int | None:
    """num_ctx, never below Ollama's floor; None where nobody set one."""
    num_ctx: int | None = options.get("num_ctx")
    return None if num_ctx is None else max(MIN_CONTEXT, num_ctx)


def sampling_of(options: Mapping[str, Any], *, logprobs: int | None = None) -> SamplingParams:
    """SamplingParams from checked options; what they lack has Ollama's default.

    Args:
        logprobs: alternatives to tell for each token; None tells no probabilities.

    Raises:
        InvalidRequest: a value that no sampler can obey.
    """
    return SamplingParams(**sampling_fields({**DEFAULTS, **options}), logprobs=logprobs)


def sampling_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of SamplingParams that checked options ask for; those that are None or empty are its own defaults."""
    fields = {name: read(options[ours]) for ours, (name, read) in _SAMPLING.items() if ours in options}
    if "num_predict" in options:
        fields["max_tokens"] = _max_tokens(options["num_predict"], context_of(options))
    return fields


def _max_tokens(num_predict: int, num_ctx: int | None) -> int | None:
    """Below zero is "no end", which is NUM_PREDICT_CONTEXTS contexts; 0 asks for the prompt alone, the least is 1."""
    cap = None if num_ctx is None else NUM_PREDICT_CONTEXTS * num_ctx
    if num_predict < 0:
        return cap
    wanted = max(1, num_predict)
    return wanted if cap is None else min(wanted, cap)


# Ollama's name -> (SamplingParams' name, how its value is read). Beyond the ends means the ends, as in llama.cpp.
_SAMPLING: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "frequency_penalty": ("frequency_penalty", float),
    "min_p": ("min_p", lambda value: min(1.0, max(0.0, value))),
    "presence_penalty": ("presence_penalty", float),
    "repeat_last_n": ("penalty_window", lambda value: None if value < 0 else value),
    "repeat_penalty": ("repetition_penalty", float),
    "seed": ("seed", lambda value: None if value == -1 else value),
    "stop": ("stop", tuple),
    "temperature": ("temperature", lambda value: max(0.0, value)),
    "top_k": ("top_k", lambda value: max(0, value)),
    "top_p": ("top_p", lambda value: min(1.0, max(1e-9, value))),
}
