"""Plots as inline SVG: lines, distributions, dots and bars, without a script and readable without colour.

Each engine keeps its number in every plot, and with it its colour, marker and dashes; the colours are the page's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from corral.compare.report import units
from corral.compare.report.axis import Axis, axis_of, tick_text

WIDTH = 480
MAX_POINTS = 240  # of one line; more cannot be told apart
NUM_STYLES = 8  # the ninth engine looks like the first
_LEFT, _RIGHT, _TOP, _HEIGHT = 70, 462, 12, 210
_LEGEND_ROW = 22
_CHARACTER = 9  # width of one, about, in the largest type of the page
_LONGEST_NAME = 28
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 4", "8 2 2 2 2 2")


@dataclass(frozen=True, slots=True)
class Series:
    """One engine's points, by rising x; `style` is its number."""

    name: str
    style: int
    points: Sequence[tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the points.

    Args:
        title, description: read out in place of the picture.
        x_label, y_label: with units.
        is_step: the line keeps its height until the next point, as a distribution does.
        has_markers: each point is drawn, not the last alone.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    x_log: bool = False
    y_log: bool = False
    is_step: bool = False
    has_markers: bool = True
    x_ticks: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One engine's values of a figure; `style` is its number."""

    name: str
    style: int
    values: Sequence[float | None]


def lines(frame: Frame, series: Sequence[Series]) -> str:
    """One line an engine. Points that are no numbers are left out, and those below zero of a logarithmic axis."""
    known = [(line, _known_points(line.points)) for line in series]
    known = [(line, points) for line, points in known if points]
    flat = [point for _, points in known for point in points]
    if not flat:
        return _nothing(frame)
    x_axis = axis_of([x for x, _ in flat], _LEFT, _RIGHT, may_be_log=frame.x_log, from_zero=not frame.x_log)
    y_axis = axis_of([y for _, y in flat], _TOP + _HEIGHT, _TOP, may_be_log=frame.y_log)
    parts = [_grid(frame, x_axis, y_axis)]
    for line, points in known:
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in points]
        parts.append(_path(places, line.style, is_step=frame.is_step))
        parts += [_marker(x, y, line.style) for x, y in (places if frame.has_markers else places[-1:])]
    return _picture(frame, parts, [(line.name, line.style) for line, _ in known])


def ecdf(frame: Frame, rows: Sequence[Row]) -> str:
    """The share of values that are at most x. `frame.is_step` and markers are set here."""
    series = []
    for row in rows:
        values = sorted(units.finite(row.values))
        picks = range(len(values)) if len(values) <= MAX_POINTS else _picks(len(values))
        points = [(values[i], (i + 1) / len(values) * 100) for i in picks]
        series.append(Series(row.name, row.style, [(points[0][0], 0.0), *points] if points else []))
    plain = Frame(
        frame.title, frame.description, frame.x_label, "% of them", x_log=True, is_step=True, has_markers=False
    )
    return lines(plain, series)


def dots(frame: Frame, rows: Sequence[Row]) -> str:
    """Every value as a dot beside its engine's name, the median as a stroke: how far the repeats scatter."""
    return _rows_plot(frame, rows, has_bars=False)


def bars(frame: Frame, rows: Sequence[Row]) -> str:
    """The median as a bar, lowest and highest as a whisker, and its figure in words."""
    return _rows_plot(frame, rows, has_bars=True)


def _rows_plot(frame: Frame, rows: Sequence[Row], *, has_bars: bool) -> str:
    known = [(row, units.finite(row.values)) for row in rows]
    flat = [value for _, values in known for value in values]
    if not flat:
        return _nothing(frame)
    row_height = 46
    bottom = _TOP + row_height * len(known)
    axis = axis_of(flat, 14, _RIGHT, from_zero=has_bars, may_be_log=not has_bars)
    parts = [_scale(axis, bottom, frame.x_label)]
    for index, (row, values) in enumerate(known):
        y = _TOP + index * row_height
        style = row.style % NUM_STYLES
        parts.append(f'<text class="name" x="14" y="{y + 13}">{escape(_short(row.name))}</text>')
        if not values:
            parts.append(f'<text class="tick" x="14" y="{y + 32}">not measured</text>')
            continue
        middle = units.median(values) or 0.0
        left, right = axis.place(min(values)), axis.place(max(values))
        centre, zero = axis.place(middle), axis.place(0.0 if not axis.is_log else axis.low)
        if has_bars:
            parts.append(
                f'<rect class="bar c{style}" x="{_n(zero)}" y="{y + 19}" '
                f'width="{_n(max(centre - zero, 1))}" height="16"/>'
            )
            if len(values) > 1:
                parts.append(
                    f'<path class="whisker" d="M{_n(left)} {y + 27}H{_n(right)}M{_n(left)} {y + 22}V{y + 32}'
                    f'M{_n(right)} {y + 22}V{y + 32}"/>'
                )
        else:
            parts.append(f'<path class="thin" d="M{_n(left)} {y + 27}H{_n(right)}"/>')
            parts.append(f'<path class="median c{style}" d="M{_n(centre)} {y + 18}V{y + 36}"/>')
            parts += [_marker(axis.place(value), y + 27, row.style) for value in values]
        text = f"{tick_text(middle)} (n={len(values)})"
        parts.append(f'<text class="value" x="{_RIGHT}" y="{y + 13}">{escape(text)}</text>')
    return _picture(frame, parts, [], bottom + 40)


def _known_points(points: Sequence[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    known = [(x, y) for x, y in points if x is not None and y is not None and len(units.finite([x, y])) == 2]
    return known if len(known) <= MAX_POINTS + 1 else [known[i] for i in _picks(len(known))]


def _picks(count: int) -> list[int]:
    """As many as a line may have, first and last among them."""
    return sorted({round(i * (count - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})


def _grid(frame: Frame, x_axis: Axis, y_axis: Axis) -> str:
    bottom = _TOP + _HEIGHT
    parts = []
    for tick in y_axis.ticks():
        y = _n(y_axis.place(tick))
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y}" dy="4" text-anchor="end">{escape(tick_text(tick))}</text>'
        )
    middle = _TOP + _HEIGHT / 2
    parts.append(
        f'<text class="label" x="14" y="{_n(middle)}" text-anchor="middle" transform="rotate(-90 14 {_n(middle)})">'
        f"{escape(_log_label(frame.y_label, y_axis))}</text>"
    )
    return "".join(parts) + _scale(x_axis, bottom, frame.x_label, frame.x_ticks)


def _scale(axis: Axis, bottom: float, label: str, ticks: Sequence[float] = ()) -> str:
    """The axis below, its ticks and its label."""
    parts = [f'<path class="axis" d="M{_n(axis.start)} {_n(bottom)}H{_n(axis.end)}"/>']
    last = -math.inf
    for tick in ticks or axis.ticks():
        x, text = axis.place(tick), tick_text(tick)
        if x - last < _CHARACTER * (1 + len(text)):  # it would run into the one before
            continue
        last = x
        parts.append(f'<path class="axis" d="M{_n(x)} {_n(bottom)}v4"/>')
        parts.append(f'<text class="tick" x="{_n(x)}" y="{_n(bottom + 17)}" text-anchor="middle">{escape(text)}</text>')
    middle = (axis.start + axis.end) / 2
    text = escape(_log_label(label, axis))
    parts.append(f'<text class="label" x="{_n(middle)}" y="{_n(bottom + 34)}" text-anchor="middle">{text}</text>')
    return "".join(parts)


def _log_label(label: str, axis: Axis) -> str:
    return f"{label}, logarithmic" if axis.is_log else label


def _path(places: Sequence[tuple[float, float]], style: int, *, is_step: bool) -> str:
    (x, y), rest = places[0], places[1:]
    steps = [f"M{_n(x)} {_n(y)}"]
    for x, y in rest:
        steps.append(f"H{_n(x)}V{_n(y)}" if is_step else f"L{_n(x)} {_n(y)}")
    style %= NUM_STYLES
    dashes = f' stroke-dasharray="{_DASHES[style]}"' if _DASHES[style] else ""
    return f'<path class="line c{style}"{dashes} d="{"".join(steps)}"/>'


def _marker(x: float, y: float, style: int) -> str:
    style %= NUM_STYLES
    shapes = (
        "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        "m-3.5 -3.5h7v7h-7z",
        "m0 -4.5l4.5 8h-9z",
        "m0 -5l5 5l-5 5l-5 -5z",
        "m0 4.5l4.5 -8h-9z",
        "m-1.5 -5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
        "m-4.5 -2h9v4h-9z",
        "m-2 -4.5h4v9h-4z",
    )
    return f'<path class="marker c{style}" d="M{_n(x)} {_n(y)}{shapes[style]}"/>'


def _legend(names: Sequence[tuple[str, int]], top: float) -> tuple[str, float]:
    """The legend and where it ends."""
    parts, x, y = [], 14.0, top
    for name, style in names:
        text = _short(name)
        width = 44 + _CHARACTER * len(text)
        if x + width > _RIGHT and x > 14:
            x, y = 14.0, y + _LEGEND_ROW
        parts.append(_path([(x, y), (x + 26, y)], style, is_step=False) + _marker(x + 13, y, style))
        parts.append(f'<text class="name" x="{_n(x + 32)}" y="{_n(y)}" dy="4">{escape(text)}</text>')
        x += width
    return "".join(parts), y + _LEGEND_ROW / 2


def _picture(frame: Frame, parts: Sequence[str], names: Sequence[tuple[str, int]], height: float = 0) -> str:
    if names:
        legend, height = _legend(names, _TOP + _HEIGHT + 54)
        parts = [*parts, legend]
    said = escape(f"{frame.title}. {frame.description}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {_n(height + 4)}" role="img" aria-label="{said}">'
        f"<title>{escape(frame.title)}</title><desc>{escape(frame.description)}</desc>{''.join(parts)}</svg>"
    )


def _nothing(frame: Frame) -> str:
    text = f'<text class="label" x="{WIDTH / 2:.0f}" y="34" text-anchor="middle">nothing was measured</text>'
    return _picture(frame, [text], [], 56)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "\u2026"


def _n(value: float) -> str:
    """A coordinate: one digit after the point."""
    return f"{value:.1f}".removesuffix(".0")
