"""The first chapter: what was found, what to choose when, and where Corral loses."""

from __future__ import annotations

from collections.abc import Sequence

from corral.compare.report import criteria, units
from corral.compare.report.chapters.speed import sweep_plots
from corral.compare.report.chapters.tables import figure_cell, missing_rows, plural, side_by_side, unbeaten
from corral.compare.report.choose import LEAST_RATIO, Choice, choices, lead
from corral.compare.report.document import Block, Bullets, Card, Cards, Cell, Chapter, Heading, Paragraph, Plots, Table
from corral.compare.report.figures import OWN, Figures
from corral.compare.report.ratio import FEW_REPEATS
from corral.compare.report.verdicts import LEAST_DIFFERENCE, greatest_rates
from corral.compare.results import Verdict

_HEADLINES = (criteria.OUTPUT_RATE, criteria.FIRST_TOKEN)
_UNDECIDED = f"Fewer than {FEW_REPEATS} repeats: they say nothing for or against it."
_LEAST = f"{LEAST_DIFFERENCE * 100:g} %"
_START_HEADLINES = (criteria.FIRST_WARM, criteria.IDLE_MEMORY)


def summary(figures: Figures, verdicts: Sequence[Verdict]) -> Chapter:
    blocks: list[Block] = [_engines(figures)]
    if not figures.engines:
        return Chapter("summary", "Summary", [*blocks, Paragraph("No engine was run, so there is nothing to compare.")])
    blocks.append(_glance(figures, verdicts))
    for names in [*figures.sweeps().values()][:1]:
        blocks.append(Plots(sweep_plots(figures, names, (criteria.OUTPUT_RATE, criteria.LATENCY))))
    blocks.append(Heading("Choose this when"))
    if len(figures.engines) < 2:
        blocks.append(Paragraph("One engine alone was run, so there is nothing to choose from.", "missing"))
    else:
        is_decided = any(verdict.low is not None for verdict in verdicts)
        nothing = "It leads in nothing that was measured here." if is_decided else _UNDECIDED
        cards = [Card(choice.engine, _choice(choice, nothing)) for choice in choices(figures, verdicts)]
        blocks += [Cards(cards), Paragraph(_rule())]
    blocks += _own(figures, verdicts)
    return Chapter("summary", "Summary", blocks)


def _engines(figures: Figures) -> Table:
    rows = []
    for row in figures.rows.values():
        if not row.missing:
            repeats = {run.repeat for run in figures.comparison.runs if run.engine == row.name}
            state = (
                Cell("measured", detail=plural(len(repeats), "repeat")) if repeats else Cell("no load was run", "warn")
            )
            rows.append([Cell(row.name), state, Cell(row.version or "not told"), Cell("; ".join(row.notes))])
    rows += missing_rows(figures.missing)
    return Table("Engines of this comparison", ["engine", "state", "version", "what to know"], rows)


def _glance(figures: Figures, verdicts: Sequence[Verdict]) -> Table:
    rows = []
    for workload in _headline_loads(figures):
        for criterion in _HEADLINES:
            best = unbeaten(verdicts, criterion.key, workload)
            values = {engine: figures.values(engine, workload, criterion) for engine in figures.engines}
            if any(values.values()):
                title = f"{criterion.title}: {figures.loads[workload].title}"
                rows.append(
                    (title, {e: figure_cell(v.values(), criterion.form, is_best=e in best) for e, v in values.items()})
                )
        failed = {engine: figures.failed(engine, workload) for engine in figures.engines}
        if any(num_failed for num_failed, _ in failed.values()):
            cells = {e: Cell(f"{bad} of {total}", "bad" if bad else "") for e, (bad, total) in failed.items() if total}
            rows.append((f"Requests that failed: {figures.loads[workload].title}", cells))
    for start_criterion in _START_HEADLINES:
        best = unbeaten(verdicts, start_criterion.key, "")
        starts = {engine: figures.start_values(engine, start_criterion.of) for engine in figures.engines}
        if any(starts.values()):
            cells = {e: figure_cell(v.values(), start_criterion.form, is_best=e in best) for e, v in starts.items()}
            rows.append((start_criterion.title, cells))
    rates = greatest_rates(figures)
    if any(rates.values()):
        best = unbeaten(verdicts, criteria.GREATEST_RATE.key, "")
        form = criteria.GREATEST_RATE.form
        rows.append(
            (
                criteria.GREATEST_RATE.title,
                {e: figure_cell(rates[e].values(), form, is_best=e in best) for e in figures.engines},
            )
        )
    rows.append(
        (
            "Disk space of the installation",
            {e: Cell(units.size(figures.rows[e].install_bytes)) for e in figures.engines},
        )
    )
    for area in dict.fromkeys(check.area for row in figures.rows.values() for check in row.checks):
        rows.append((f"Checks passed: {area}", {e: _passed(figures, e, area) for e in figures.engines}))
    note = (
        "Median, with lowest and highest below. The mark \u25b2 is on engines that beat another and are beaten by none."
    )
    return side_by_side("At a glance", figures, rows, note)


def _headline_loads(figures: Figures) -> list[str]:
    """Both ends of every sweep, and every workload that is in none."""
    in_sweeps = {name for names in figures.sweeps().values() for name in names}
    ends = {name for names in figures.sweeps().values() for name in (names[0], names[-1])}
    return [name for name in figures.loads if name in ends or name not in in_sweeps]


def _passed(figures: Figures, engine: str, area: str) -> Cell:
    checks = [check for check in figures.rows[engine].checks if check.area == area]
    if not checks:
        return Cell(units.NOTHING)
    tried = [check for check in checks if check.verdict != "unknown"]
    passed = sum(check.verdict == "pass" for check in tried)
    untried = len(checks) - len(tried)
    text = f"{passed} of {len(tried)}" if tried else units.NOTHING
    return Cell(text, detail=f"{untried} could not be tried" if untried else "")


def _choice(choice: Choice, nothing: str) -> list[Block]:
    blocks: list[Block] = []
    if choice.reasons:
        blocks.append(Paragraph("Choose it when", "good"))
        blocks.append(Bullets([Cell(reason.wish, detail=reason.evidence) for reason in choice.reasons]))
    else:
        blocks.append(Paragraph(nothing, "missing"))
    if choice.losses:
        blocks.append(Paragraph("Choose another when", "bad"))
        blocks.append(Bullets([Cell(reason.wish, detail=reason.evidence) for reason in choice.losses]))
    if choice.warnings:
        blocks.append(Paragraph("It did not do quite the same work", "warn"))
        blocks.append(Bullets([Cell(text) for text in choice.warnings]))
    return blocks


def _rule() -> str:
    return (
        f"The rule: an engine is named for what it does better than every other here by a factor of {LEAST_RATIO:g} or "
        f"more, and warned of for what any other does better by as much, where the 95 % interval of the ratio leaves "
        f"out 1. Fewer than {FEW_REPEATS} repeats decide nothing, and differences below {_LEAST} are called none."
    )


def _own(figures: Figures, verdicts: Sequence[Verdict]) -> list[Block]:
    """Every defeat of Corral, however small, and how often it wins."""
    own = [verdict for verdict in verdicts if OWN in (verdict.first, verdict.second)]
    if not own:
        return []
    lost = sorted((v for v in own if v.winner not in ("", OWN)), key=lead, reverse=True)
    won = sum(verdict.winner == OWN for verdict in own)
    undecided = len(own) - won - len(lost)
    count = (
        f"Of {len(own)} comparisons with another engine, Corral wins {won}, loses {len(lost)}, and {undecided} are "
        f"undecided."
    )
    rows = [
        [
            Cell(verdict.title),
            Cell(figures.loads[verdict.workload].title if verdict.workload else ""),
            Cell(verdict.winner),
            Cell(verdict.text),
        ]
        for verdict in lost
    ]
    blocks: list[Block] = [Heading("Where Corral loses"), Paragraph(count)]
    if rows:
        blocks.append(
            Table("Defeats of Corral, the greatest first", ["criterion", "workload", "better", "verdict"], rows)
        )
    return blocks
