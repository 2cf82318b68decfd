"""The ratio of two engines' medians, and how far it could be off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from corral.compare.report.units import LEAST

FEW_REPEATS = 3  # with fewer, no interval means anything
RESAMPLES = 4000
_TAIL = 2.5  # percent that each end of the interval leaves out


@dataclass(frozen=True, slots=True)
class Ratio:
    """`value` is first over second; low and high are its 95 % interval, None where there are too few repeats."""

    value: float
    low: float | None
    high: float | None

    @property
    def is_known(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def inverse(value: float) -> float:
    """1 / value, of zero and infinity too."""
    return math.inf if value == 0 else 1 / value


def paired_ratio(first: Mapping[int, float], second: Mapping[int, float], seed: int) -> Ratio | None:
    """Of repeats that were interleaved: a repeat of both was measured in the same minutes, and is drawn together.

    Args:
        first, second: repeat -> a figure; zero is a figure only where all repeats have it.

    Returns:
        None where either has none, or where zeros leave no ratio.
    """
    repeats = sorted(first.keys() & second.keys())
    if len(repeats) < FEW_REPEATS:
        return _point([*first.values()], [*second.values()])
    ones = np.array([first[repeat] for repeat in repeats])
    others = np.array([second[repeat] for repeat in repeats])
    draws = np.random.default_rng(abs(seed)).integers(0, len(repeats), (RESAMPLES, len(repeats)))
    return _interval(ones, others, ones[draws], others[draws])


def unpaired_ratio(first: Mapping[int, float], second: Mapping[int, float], seed: int) -> Ratio | None:
    """Of repeats that have nothing in common, as those of two files. Arguments and result are paired_ratio's."""
    if min(len(first), len(second)) < FEW_REPEATS:
        return _point([*first.values()], [*second.values()])
    generator = np.random.default_rng(abs(seed))
    ones, others = np.array([*first.values()]), np.array([*second.values()])
    one_draws = generator.integers(0, len(ones), (RESAMPLES, len(ones)))
    other_draws = generator.integers(0, len(others), (RESAMPLES, len(others)))
    return _interval(ones, others, ones[one_draws], others[other_draws])


def _point(first: list[float], second: list[float]) -> Ratio | None:
    if not first or not second or min(*first, *second) < LEAST:
        return None
    return Ratio(float(np.median(first) / np.median(second)), None, None)


def _interval(ones: np.ndarray, others: np.ndarray, drawn: np.ndarray, other_drawn: np.ndarray) -> Ratio | None:
    if not ones.any() and others.min() > 0:
        return Ratio(0.0, 0.0, 0.0)
    if not others.any() and ones.min() > 0:
        return Ratio(math.inf, math.inf, math.inf)
    if min(ones.min(), others.min()) < LEAST:
        return None
    ratios = np.median(drawn, axis=1) / np.median(other_drawn, axis=1)
    low, high = np.percentile(ratios, [_TAIL, 100 - _TAIL])
    value = float(np.median(ones) / np.median(others))
    return Ratio(value, float(low), float(high)) if math.isfinite(value) else None
