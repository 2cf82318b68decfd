"""Numbers as the report writes them: three digits that count, and their unit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

NOTHING = "\N{EN DASH}"  # where there is no number
MOST = 1e100  # no clock and no scale goes beyond
LEAST = 1e-100
Form = Callable[[float | None], str]
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def finite(values: Iterable[float | None]) -> list[float]:
    """Those that are numbers, and none that no clock or scale could show."""
    return [value for value in values if value is not None and abs(value) < MOST]


def number(value: float | None) -> str:
    """1,234; 35.1; 0.0123."""
    if value is None or not abs(value) < MOST:
        return NOTHING
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(digits, 6)}f}"
    return text if float(text.replace(",", "")) else f"{value:.2g}"


def seconds(value: float | None) -> str:
    """412 ms, 24.1 s, 3 min 20 s."""
    if value is None or not abs(value) < MOST:
        return NOTHING
    if value == 0:
        return "0 s"
    if abs(value) < 0.9995:
        return f"{number(value * 1000)} ms"
    if abs(value) < 120:
        return f"{number(value)} s"
    whole = round(value)
    return f"{whole // 60:,} min {whole % 60} s"


def size(value: float | None) -> str:
    """1.21 GB: powers of 1000."""
    if value is None or not abs(value) < MOST:
        return NOTHING
    for unit, name in _SIZES:
        if abs(value) >= unit:
            return f"{number(value / unit)} {name}"
    return f"{value:.0f} B"


def share(value: float | None) -> str:
    """2.5 %."""
    return NOTHING if value is None or not abs(value) < MOST else f"{number(value * 100)} %"


def between(low: float, high: float, form: Form) -> str:
    """46.2 to 46.5 tok/s: the unit once, where both have the same."""
    first, last = form(low), form(high)
    number_of, _, unit = first.rpartition(" ")
    return (
        f"{number_of} to {last}"
        if number_of and last.endswith(f" {unit}") and " " not in number_of
        else f"{first} to {last}"
    )


def count(value: float | None) -> str:
    return NOTHING if value is None or not abs(value) < MOST else f"{value:,.0f}"


def median(values: Iterable[float | None]) -> float | None:
    """Of those that are numbers; None if none is."""
    known = finite(values)
    return statistics.median(known) if known else None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The nearest rank: the smallest value that at least `percent` of them do not exceed; None for no values."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)] if values else None


def spread(values: Iterable[float | None], form: Form) -> str:
    """Median, lowest, highest, and how many they are."""
    known = finite(values)
    if not known:
        return NOTHING
    if len(known) == 1:
        return f"{form(known[0])} (n=1)"
    return f"{form(statistics.median(known))} ({between(min(known), max(known), form)}, n={len(known)})"
