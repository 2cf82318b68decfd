"""Medians with their range, ratios."""

from __future__ import annotations

from benchmarks.spread import ratio, with_range


def test_range_marks_scatter_and_few_repeats() -> None:
    assert with_range([100.0, 101.0, 102.0, 103.0, 104.0]) == "102.0 (100.0-104.0)"
    assert with_range([100.0, 50.0, 150.0, 100.0, 100.0]) == "~100.0 (50.0-150.0)"
    assert with_range([1.0], 2) == "1.00 (1.00-1.00, n=1)"


def test_ratio_pairs_repeats_by_number() -> None:
    assert ratio({0: 10.0, 1: 20.0, 2: 30.0}, {1: 10.0}) == "2.00 (2.00-2.00)"
    assert ratio({0: 10.0}, {1: 5.0}) == "2.00"
