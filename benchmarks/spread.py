"""Medians and how far repeats scatter: every page says them alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

MAX_SPREAD = 0.15  # repeats that scatter more than this are marked: read them with care
FEW_REPEATS = 5  # fewer than this are named


def with_range(values: Sequence[float], digits: int = 1) -> str:
    """Median, lowest and highest; marked where they scatter, or where they are few."""
    median = statistics.median(values)
    mark = "~" if max(values) - min(values) > MAX_SPREAD * abs(median) else ""
    few = f", n={len(values)}" if len(values) < FEW_REPEATS else ""
    return f"{mark}{median:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f}{few})"


def ratio(own: Mapping[int, float], rival: Mapping[int, float]) -> str:
    """Of the medians, and the lowest and highest of the repeats that both have; keys are repeats."""
    pairs = [own[repeat] / rival[repeat] for repeat in own.keys() & rival.keys()]
    text = f"{statistics.median(own.values()) / statistics.median(rival.values()):.2f}"
    return text + (f" ({min(pairs):.2f}-{max(pairs):.2f})" if pairs else "")
