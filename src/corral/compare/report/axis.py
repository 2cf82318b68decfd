"""Axes of plots: from values to places, and where the ticks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from corral.compare.report import units

LOG_FROM = 30.0  # an axis whose greatest value is as many times its least is drawn by powers of ten, where it may be
_STEPS = (1, 2, 2.5, 5, 10)
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Axis:
    """From low to high, of values, is from start to end in the picture; low is above zero where it is logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Of a value in the picture; what lies beyond an end is drawn at it."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            part = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """At round values, within the ends."""
        if self.is_log:
            return self._log_ticks()
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, first + 2 * _TICKS + 3) if i * step <= self.high * (1 + 1e-9)]

    def _log_ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            ticks = [digit * 10.0**power for power in powers for digit in digits]
            ticks = [tick for tick in ticks if self.low * 0.999 <= tick <= self.high * 1.001]
            if len(ticks) <= _TICKS + 2:
                return ticks
        return ticks[:: math.ceil(len(ticks) / (_TICKS + 2))]


def axis_of(
    values: Sequence[float], start: float, end: float, *, may_be_log: bool = False, from_zero: bool = True
) -> Axis:
    """An axis that has room for all values; they are finite."""
    if may_be_log and values and min(values) > 0 and max(values) / min(values) >= LOG_FROM:
        return Axis(min(values) / 1.1, max(values) * 1.1, start, end, is_log=True)
    low = min(values, default=0.0)
    high = max(values, default=1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= max(abs(high), units.LEAST) * 1e-9:  # all the same, for what can be drawn
        high = low + (abs(low) if abs(low) > units.LEAST else 1.0)
    margin = (high - low) * 0.05
    return Axis(low if from_zero and low == 0 else low - margin, high + margin, start, end)


def tick_text(value: float) -> str:
    """Without digits that all ticks would have alike."""
    text = units.number(value)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text if len(text) < 8 else f"{value:.0e}"


def time_unit(values: Sequence[float]) -> tuple[float, str]:
    """What seconds are multiplied with, and the unit they are in then."""
    return (1000.0, "ms") if values and max(values) < 1 else (1.0, "s")


def size_unit(values: Sequence[float]) -> tuple[float, str]:
    """What bytes are multiplied with, and the unit they are in then."""
    greatest = max(values, default=0.0)
    return (1e-9, "GB") if greatest >= 1e9 else (1e-6, "MB")


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next((step * power for step in _STEPS if step * power >= least * (1 - 1e-9)), 10 * power)
