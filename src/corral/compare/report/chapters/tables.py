"""Tables that several chapters draw: figures of engines side by side, and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from corral.compare.report import units
from corral.compare.report.document import Cell, Table
from corral.compare.report.figures import Figures
from corral.compare.report.units import Form
from corral.compare.report.verdicts import interval_text
from corral.compare.results import EngineRow, Verdict

SCATTER = 0.15  # of the median: repeats whose range is wider are said to scatter
MISSING = "not run"


def side_by_side(
    caption: str, figures: Figures, rows: Sequence[tuple[str, Mapping[str, Cell]]], note: str = ""
) -> Table:
    """One column for each engine that was run; an engine without a cell has none."""
    nothing = Cell(units.NOTHING)
    body = [[Cell(title), *(by_engine.get(engine, nothing) for engine in figures.engines)] for title, by_engine in rows]
    return Table(caption, ["", *figures.engines], body, note)


def figure_cell(values: Iterable[float | None], form: Form, *, is_best: bool = False) -> Cell:
    """The median, with range and number of the repeats below."""
    known = units.finite(values)
    if not known:
        return Cell(units.NOTHING)
    middle = units.median(known) or 0.0
    if len(known) == 1:
        detail = "one repeat"
    else:
        detail = f"{units.between(min(known), max(known), form)}, n={len(known)}"
        if max(known) - min(known) > SCATTER * abs(middle):
            detail += ", scatters"
    return Cell(form(middle), "good" if is_best else "", detail)


def unbeaten(verdicts: Iterable[Verdict], criterion: str, workload: str) -> set[str]:
    """Engines that beat another in a criterion and are beaten by none."""
    group = [v for v in verdicts if v.criterion == criterion and v.workload == workload and v.winner]
    losers = {v.second if v.winner == v.first else v.first for v in group}
    return {v.winner for v in group} - losers


def differing(values: Mapping[str, str], wanted: str | None = None) -> dict[str, Cell]:
    """Marks those that differ from what is wanted, else from what most have; all, where no value has most."""
    known = [value for value in values.values() if value != units.NOTHING]
    common = wanted if wanted is not None else max(known, key=known.count, default="")
    if wanted is None and known.count(common) * 2 <= len(known) and len(known) > 1:
        common = ""
    return {
        engine: Cell(value, "bad" if value != units.NOTHING and value != common else "")
        for engine, value in values.items()
    }


def plural(count: int, noun: str) -> str:
    """1 client, 2 clients."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def by_engine(figures: Figures, text: Callable[[str], str]) -> dict[str, str]:
    """Engine -> what is said of it."""
    return {engine: text(engine) for engine in figures.engines}


def missing_rows(rows: Iterable[EngineRow]) -> list[list[Cell]]:
    """Engines that were not run, with the reason in place of figures."""
    return [[Cell(row.name), Cell(f"{MISSING}: {row.missing}", "missing")] for row in rows]


def verdict_table(caption: str, verdicts: Sequence[Verdict]) -> Table:
    """One row a pair and criterion."""
    body = []
    for verdict in verdicts:
        has_interval = verdict.low is not None
        ratio = f"{units.number(verdict.ratio)}\N{MULTIPLICATION SIGN}"
        body.append(
            [
                Cell(verdict.title),
                Cell(f"{verdict.first} / {verdict.second}"),
                Cell(ratio, detail=interval_text(verdict.low, verdict.high) if has_interval else ""),
                Cell(f"{verdict.winner} is better") if verdict.winner else Cell(verdict.text, "missing"),
            ]
        )
    note = "The ratio says how many times better the first of the pair is than the second; below 1, it is worse."
    return Table(caption, ["criterion", "pair", "ratio", "verdict"], body, note)
