"""Plots: sound SVG for any number of engines and any values, and what is drawn is what was given."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.compare.report import svg
from corral.compare.report.axis import Axis, axis_of, tick_text
from corral.compare.report.svg import Frame, Row, Series

FRAME = Frame("First <token> & more", "a: 1; b: 2", "clients", "s", x_log=True, y_log=True)
VALUES = st.lists(st.none() | st.floats(), max_size=20)


def parsed(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)  # noqa: S314


def numbers(picture: str) -> list[float]:
    """Every number in a place or a path."""
    places = re.findall(r' (?:d|x|y|width|height|viewBox|transform)="([^"]*)"', picture)
    return [float(text) for place in places for text in re.findall(r"-?\d+(?:\.\d+)?", place)]


@pytest.mark.parametrize("count", [1, 2, 8, 9])
def test_any_number_of_engines(count: int) -> None:
    series = [Series(f"engine {i}", i, [(1, i + 1.0), (50, i + 2.0)]) for i in range(count)]
    root = parsed(svg.lines(FRAME, series))
    lines = [element for element in root if (element.get("class") or "").startswith("line")]
    assert len(lines) == 2 * count  # in the plot and in the legend
    styles = {(element.get("class"), element.get("stroke-dasharray")) for element in lines}
    assert len(styles) == min(count, svg.NUM_STYLES)
    names = [element.text for element in root if element.get("class") == "name"]
    assert names == [f"engine {i}" for i in range(count)]
    height = float((root.get("viewBox") or "").split()[3])
    assert all(0 <= float(element.get("y") or 0) <= height for element in root)
    assert all(0 <= float(element.get("x") or 0) <= svg.WIDTH for element in root)


def test_it_says_in_words_what_it_shows() -> None:
    root = parsed(svg.lines(FRAME, [Series("a", 0, [(1, 2)])]))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "First <token> & more. a: 1; b: 2"
    assert [element.text for element in root[:2]] == ["First <token> & more", "a: 1; b: 2"]


def test_points_that_are_no_numbers_are_left_out() -> None:
    series = [Series("a", 0, [(1, None), (2, math.nan), (3, math.inf), (4, 4.0), (5, 5.0)])]
    root = parsed(svg.lines(FRAME, series))
    path = next(element for element in root if (element.get("class") or "").startswith("line"))
    assert len(re.findall("[ML]", path.get("d") or "")) == 2


def test_nothing_at_all() -> None:
    assert "nothing was measured" in svg.dots(FRAME, [Row("a", 0, [])])
    assert "nothing was measured" in svg.bars(FRAME, [Row("a", 0, [None])])
    assert "nothing was measured" in svg.ecdf(FRAME, [Row("a", 0, [math.nan])])
    assert "nothing was measured" in svg.lines(FRAME, [])


def test_an_engine_without_values_is_named() -> None:
    picture = svg.bars(FRAME, [Row("fast", 0, [1.0, 2.0]), Row("silent", 1, [])])
    assert "silent" in picture
    assert "not measured" in picture


@given(st.lists(VALUES, min_size=1, max_size=9))
def test_any_values_are_drawn_within_the_picture(rows: list[list[float | None]]) -> None:
    engines = [Row(f"e{i}", i, values) for i, values in enumerate(rows)]
    points = [Series(f"e{i}", i, [(float(x), y) for x, y in enumerate(values)]) for i, values in enumerate(rows)]
    for picture in (
        svg.dots(FRAME, engines),
        svg.bars(FRAME, engines),
        svg.ecdf(FRAME, engines),
        svg.lines(FRAME, points),
    ):
        parsed(picture)
        assert all(-svg.WIDTH <= number <= 2000 for number in numbers(picture))


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(x), float(x)) for x in range(10_000)]
    picture = svg.lines(Frame("t", "d", "x", "y", has_markers=False), [Series("a", 0, points)])
    path = next(element for element in parsed(picture) if (element.get("class") or "").startswith("line"))
    assert len(re.findall("[ML]", path.get("d") or "")) <= svg.MAX_POINTS + 1
    assert len(picture) < 10_000


def test_a_distribution_ends_at_all_of_them() -> None:
    picture = svg.ecdf(FRAME, [Row("a", 0, [3.0, 1.0, 2.0, 4.0])])
    path = next(element for element in parsed(picture) if (element.get("class") or "").startswith("line"))
    heights = [float(text) for text in re.findall(r"[V ]([\d.]+)", path.get("d") or "")]
    assert heights == sorted(heights, reverse=True)  # it never falls
    steps = [earlier - later for earlier, later in itertools.pairwise(heights)]
    assert max(steps) - min(steps) < 0.3  # four equal steps, as drawn to a tenth


def test_places_on_an_axis() -> None:
    axis = Axis(1, 100, 0, 200, is_log=True)
    assert [axis.place(value) for value in (1, 10, 100)] == pytest.approx([0, 100, 200])
    assert axis.place(-5) == 0
    assert Axis(0, 10, 100, 0).place(2.5) == 75


ENDS = [[0.0], [5e-324], [1e-300, 1.0], [5.0], [-3.0, 8.0], [1e-9, 2e-9], [1e12, 1.00001e12], [0.001, 1e6]]


@pytest.mark.parametrize("values", ENDS)
@pytest.mark.parametrize("may_be_log", [True, False])
def test_ticks_lie_on_the_axis(values: list[float], *, may_be_log: bool) -> None:
    axis = axis_of(values, 0, 100, may_be_log=may_be_log)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 13
    assert all(axis.low <= tick <= axis.high * 1.01 for tick in ticks)
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5"), (20.0, "20"), (1000, "1,000"), (2e9, "2e+09"), (0, "0")])
def test_ticks_are_short(value: float, text: str) -> None:
    assert tick_text(value) == text
