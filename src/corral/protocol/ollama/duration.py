"""`keep_alive`: Go's durations ("1h30m", "300ms"), or seconds as a number; below zero means for ever. Pure."""

from __future__ import annotations

import math
import re

from corral.errors import InvalidRequest

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]*\.?[0-9]*)(ns|us|µs|μs|ms|s|m|h)?")
_MAX_LENGTH = 100
_MAX_S = 1e12  # beyond is for ever as well


def parse_keep_alive(value: object) -> float | None:
    """Seconds; None where nothing was asked, inf for ever.

    Raises:
        InvalidRequest: neither a number nor a duration; in Ollama's words.
    """
    match value:
        case None:
            return None
        case bool():
            raise InvalidRequest("Unsupported type: 'bool'", param="keep_alive")
        case int() | float():
            return _for_ever_below_zero(float(value) if 0 <= value <= _MAX_S else math.inf)
        case str():
            return _for_ever_below_zero(parse_duration(value))
    kind = "[]interface {}" if isinstance(value, list) else "map[string]interface {}"
    raise InvalidRequest(f"Unsupported type: '{kind}'", param="keep_alive")


def parse_duration(text: str) -> float:
    """Seconds of a duration as Go writes them.

    Raises:
        InvalidRequest: what it is not.
    """
    quoted = f'"{text[:_MAX_LENGTH]}"'
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return 0.0
    if not rest or len(text) > _MAX_LENGTH:
        raise InvalidRequest(f"time: invalid duration {quoted}", param="keep_alive")
    seconds = 0.0
    position = 0
    while position < len(rest):
        found = _PART.match(rest, position)
        number, unit = found.groups() if found else ("", None)
        if not number.strip("."):
            raise InvalidRequest(f"time: invalid duration {quoted}", param="keep_alive")
        position += len(number)
        if unit is None:
            letters = re.match(r"[^0-9.]*", rest[position:])
            if unknown := letters.group() if letters else "":
                raise InvalidRequest(f'time: unknown unit "{unknown}" in duration {quoted}', param="keep_alive")
            raise InvalidRequest(f"time: missing unit in duration {quoted}", param="keep_alive")
        position += len(unit)
        seconds += float(number) * _UNITS_S[unit]
    return -seconds if text.startswith("-") else seconds


def _for_ever_below_zero(seconds: float) -> float:
    return math.inf if seconds < 0 or seconds > _MAX_S else seconds
