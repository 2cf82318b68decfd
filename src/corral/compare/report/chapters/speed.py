"""The chapter of speed: a table and plots for each workload, and the sweeps over the number of clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral.compare.report import criteria, svg, units
from corral.compare.report.axis import time_unit
from corral.compare.report.chapters.tables import figure_cell, plural, side_by_side, unbeaten, verdict_table
from corral.compare.report.criteria import Criterion
from corral.compare.report.document import Block, Cell, Chapter, Details, Heading, Paragraph, Plot, Plots
from corral.compare.report.figures import Figures
from corral.compare.report.svg import Frame, Row, Series
from corral.compare.report.verdicts import greatest_rates
from corral.compare.results import LoadRun, Verdict

_RESOURCES = {criteria.CPU.key, criteria.PEAK_MEMORY.key}  # have their own chapter
_SWEPT = (criteria.OUTPUT_RATE, criteria.FIRST_TOKEN, criteria.TOKEN_TIME, criteria.LATENCY)


def speed(figures: Figures, verdicts: Sequence[Verdict]) -> Chapter:
    blocks: list[Block] = []
    if not figures.comparison.runs:
        return Chapter("speed", "Speed", [Paragraph("No workload was run.", "missing")])
    for stem, names in figures.sweeps().items():
        blocks.append(Heading(f"By the number of clients: {stem}"))
        blocks.append(Plots(sweep_plots(figures, names, _SWEPT)))
    for workload in figures.loads:
        blocks += _workload(figures, verdicts, workload)
    blocks += _rates(figures)
    return Chapter("speed", "Speed by workload", blocks)


def _workload(figures: Figures, verdicts: Sequence[Verdict], workload: str) -> list[Block]:
    load = figures.loads[workload]
    plan = {
        "closed": f"closed loop, {plural(load.concurrency, 'client')}, each asks again when it is answered",
        "burst": f"{plural(figures.clients(workload), 'request')} at once",
        "open": f"open loop, {units.number(load.rate)} requests a second at random times",
    }.get(load.kind, load.kind)
    way = "streamed" if load.is_streamed else "not streamed, so it has no first token of its own"
    blocks: list[Block] = [Heading(load.title), Paragraph(f"{workload}: {plan}; {way}. {' '.join(load.notes)}".strip())]
    rows = []
    for criterion in criteria.MEASURED:
        if criterion.key in _RESOURCES:
            continue
        best = unbeaten(verdicts, criterion.key, workload)
        values = {engine: figures.values(engine, workload, criterion) for engine in figures.engines}
        if any(values.values()):
            rows.append(
                (
                    criterion.title,
                    {e: figure_cell(v.values(), criterion.form, is_best=e in best) for e, v in values.items()},
                )
            )
    rows.append(("Requests that failed", {e: _failed_cell(figures, e, workload) for e in figures.engines}))
    slo = figures.comparison.slo
    if slo:
        within = {e: [criteria.within_limits(run, slo) for run in figures.runs(e, workload)] for e in figures.engines}
        rows.append(
            (f"Within the limits ({limits_text(slo)})", {e: figure_cell(v, units.share) for e, v in within.items()})
        )
    blocks.append(
        side_by_side(f"{load.title}: figures", figures, rows, "Median of the repeats, lowest and highest below.")
    )
    blocks.append(Plots(_distributions(figures, workload)))
    of_workload = [verdict for verdict in verdicts if verdict.workload == workload]
    if of_workload:
        table = verdict_table(f"{load.title}: verdicts", of_workload)
        blocks.append(Details(f"Verdicts, pair by pair: {load.title}", [table]))
    return blocks


def limits_text(slo: dict[str, float]) -> str:
    """Such as "ttft 500 ms, tpot 50 ms"."""
    return ", ".join(f"{name} {units.seconds(limit)}" for name, limit in slo.items())


def _failed_cell(figures: Figures, engine: str, workload: str) -> Cell:
    failed, total = figures.failed(engine, workload)
    if not total:
        return Cell(units.NOTHING)
    return Cell(f"{failed} of {total}", "bad" if failed else "")


def sweep_plots(figures: Figures, names: Sequence[str], swept: Sequence[Criterion[LoadRun]]) -> list[Plot]:
    """Criteria against the clients of workloads, but for those that nothing is known of."""
    return [plot for criterion in swept if (plot := _sweep(figures, names, criterion)) is not None]


def _sweep(figures: Figures, names: Sequence[str], criterion: Criterion[LoadRun]) -> Plot | None:
    medians = {
        engine: [
            (float(figures.clients(n)), units.median(figures.values(engine, n, criterion).values())) for n in names
        ]
        for engine in figures.engines
    }
    known = units.finite(value for points in medians.values() for _, value in points)
    if not known:
        return None
    factor, unit = (1.0, "tokens per second") if criterion.is_more_better else time_unit(known)
    title = f"{criterion.title}, against clients at once"
    frame = Frame(
        title,
        "; ".join(f"{engine}: {_points_text(points, criterion)}" for engine, points in medians.items()),
        "clients at once",
        unit,
        x_log=True,
        y_log=not criterion.is_more_better,
        x_ticks=sorted({float(figures.clients(name)) for name in names}),
    )
    series = [
        Series(engine, figures.style(engine), [(x, None if y is None else y * factor) for x, y in points])
        for engine, points in medians.items()
    ]
    return Plot(title, svg.lines(frame, series))


def _points_text(points: Sequence[tuple[float, float | None]], criterion: Criterion[LoadRun]) -> str:
    return ", ".join(f"{criterion.form(y)} at {x:g}" for x, y in points)


def _distributions(figures: Figures, workload: str) -> list[Plot]:
    title = figures.loads[workload].title
    plots = []
    ways: list[tuple[str, Callable[[LoadRun], list[float]]]] = [("Whole answers", criteria.latencies)]
    if figures.loads[workload].is_streamed:
        ways = [("First token", criteria.first_tokens), ("Gaps between chunks", criteria.gaps), *ways]
    for name, of in ways:
        pooled = {e: [value for run in figures.runs(e, workload) for value in of(run)] for e in figures.engines}
        flat = [value for values in pooled.values() for value in values]
        if len(flat) < 2:
            continue
        factor, unit = time_unit(flat)
        said = "; ".join(f"{e}: half within {units.seconds(units.median(v))}" for e, v in pooled.items() if v)
        frame = Frame(f"{name}: share that came within a time. {title}", said, unit, "")
        rows = [Row(e, figures.style(e), [value * factor for value in values]) for e, values in pooled.items()]
        plots.append(Plot(f"{name}: share that came within a time", svg.ecdf(frame, rows)))
    rates = {engine: figures.values(engine, workload, criteria.OUTPUT_RATE) for engine in figures.engines}
    said = "; ".join(f"{e}: {units.spread(v.values(), units.number)}" for e, v in rates.items())
    frame = Frame(f"Output tokens per second of every repeat. {title}", said, "tokens per second", "")
    dots = svg.dots(frame, [Row(e, figures.style(e), [*values.values()]) for e, values in rates.items()])
    return [Plot("Output tokens per second, a dot for every repeat", dots), *plots]


def _rates(figures: Figures) -> list[Block]:
    rates = greatest_rates(figures)
    if not any(rates.values()):
        return []
    form = criteria.GREATEST_RATE.form
    row = (criteria.GREATEST_RATE.title, {e: figure_cell(rates[e].values(), form) for e in figures.engines})
    caption = f"Greatest rate within the limits ({limits_text(figures.comparison.slo)})"
    said = "; ".join(f"{e}: {units.spread(rates[e].values(), form)}" for e in figures.engines)
    bars = svg.bars(
        Frame(caption, said, "requests per second", ""),
        [Row(e, figures.style(e), [*rates[e].values()]) for e in figures.engines],
    )
    return [Heading("The greatest rate"), side_by_side(caption, figures, [row]), Plots([Plot(caption, bars)])]
