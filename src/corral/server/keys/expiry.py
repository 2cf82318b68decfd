"""When a key ends, as people write it. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from corral.errors import InvalidRequest

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"([0-9]{1,9})([smhdw])")
MAX_SPAN_S = 100 * 365 * 86400


def parse_span(value: int | str, param: str) -> float:
    """Seconds of 90, "45s", "15m", "12h", "30d" or "2w".

    Raises:
        InvalidRequest: it is none of these, or below 0, or beyond a hundred years.
    """
    if isinstance(value, str) and (match := _SPAN.fullmatch(value.strip())):
        seconds = int(match[1]) * _UNITS_S[match[2]]
    elif isinstance(value, int):
        seconds = value
    else:
        raise _refused(value, param, "a number with s, m, h, d or w, for instance 30d")
    if not 0 <= seconds <= MAX_SPAN_S:
        raise _refused(value, param, "from 0 to a hundred years")
    return float(seconds)


def parse_expiry(value: int | str, now: float, param: str = "expires") -> float:
    """Unix seconds of themselves, of a span from now on, or of a date of ISO 8601; without a zone that is UTC.

    Raises:
        InvalidRequest: it is none of these.
    """
    if isinstance(value, int):
        return float(value) if abs(value) < 1 << 53 else float(1 << 53)
    if _SPAN.fullmatch(value.strip()):
        return now + parse_span(value, param)
    try:
        when = datetime.fromisoformat(value.strip())
    except ValueError:
        raise _refused(value, param, "a span such as 30d or 12h, or a date such as 2030-01-31") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _refused(value: object, param: str, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"{param} is {str(value)[:60]!r}; it must be {allowed}", param=param, code="invalid_value")
