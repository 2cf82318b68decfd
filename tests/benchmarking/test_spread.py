"""Percentiles, medians with their range, ratios."""

from __future__ import annotations

import pytest
from benchmarks.spread import percentile, ratio, with_range


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (20, 1), (21, 2), (50, 3), (95, 5), (100, 5)])
def test_percentile_is_the_nearest_rank(percent: float, value: float) -> None:
    assert percentile([5, 1, 4, 2, 3], percent) == value


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.5], 50) == percentile([7.5], 95) == 7.5


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentile_refuses_what_has_none(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_range_marks_scatter_and_few_repeats() -> None:
    assert with_range([100.0, 101.0, 102.0, 103.0, 104.0]) == "102.0 (100.0-104.0)"
    assert with_range([100.0, 50.0, 150.0, 100.0, 100.0]) == "~100.0 (50.0-150.0)"
    assert with_range([1.0], 2) == "1.00 (1.00-1.00, n=1)"


def test_ratio_pairs_repeats_by_number() -> None:
    assert ratio({0: 10.0, 1: 20.0, 2: 30.0}, {1: 10.0}) == "2.00 (2.00-2.00)"
    assert ratio({0: 10.0}, {1: 5.0}) == "2.00"
