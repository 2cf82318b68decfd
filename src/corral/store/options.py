"""The parameters that a Modelfile or a request may set: Ollama's names and types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from corral.errors import InvalidRequest

OPTIONS: dict[str, type] = {
    "num_keep": int,
    "seed": int,
    "num_predict": int,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "typical_p": float,
    "repeat_last_n": int,
    "temperature": float,
    "repeat_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "stop": list,  # of texts
    "num_ctx": int,
    "num_batch": int,
    "num_gpu": int,
    "main_gpu": int,
    "use_mmap": bool,
    "num_thread": int,
    "draft_num_predict": int,
}
DEPRECATED = frozenset(
    (
        *("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "numa", "tfs_z"),
    )
)
_WORDS = {int: "integer", float: "number", bool: "boolean", list: "array of strings"}
_BOOLS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_MAX_DIGITS = 20


def parse_option(name: str, text: str) -> Any:
    """The value that a Modelfile's text means; of `stop` a list of one.

    Raises:
        InvalidRequest: no such parameter, or not of its type; in Ollama's words.
    """
    kind = _kind_of(name)
    if kind is list:
        return [text]
    if kind is bool:
        if (value := _BOOLS.get(text.lower())) is not None:
            return value
    elif len(text) <= 40:
        try:
            number = int(text) if kind is int and len(text) <= _MAX_DIGITS else float(text)
            if isinstance(number, kind) and math.isfinite(number) and text.strip() == text and "_" not in text:
                return number
        except (ValueError, OverflowError):
            pass
    raise InvalidRequest(f"invalid {kind.__name__} value [{text[:60]}] of parameter {name!r}", param="parameters")


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A request's parameters, each of its type; deprecated ones are left out.

    Raises:
        InvalidRequest: as parse_option.
    """
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name in DEPRECATED:
            continue
        kind = _kind_of(name)
        if kind is list and isinstance(value, str):
            value = [value]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON of some clients knows no other numbers
        is_right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not is_right or (kind is list and not all(isinstance(each, str) for each in value)):
            raise InvalidRequest(f"option {name!r} must be of type {_WORDS[kind]}", param="parameters")
        checked[name] = value
    return checked


def format_option(value: Any) -> str:
    """A value as a Modelfile has it."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _kind_of(name: str) -> type:
    if name not in OPTIONS:
        raise InvalidRequest(f"unknown parameter {name[:60]!r}", param="parameters")
    return OPTIONS[name]
