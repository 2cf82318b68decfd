"""The chapters of what an engine takes: over time, from cold, and for what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral.compare.report import criteria, svg, units
from corral.compare.report.axis import size_unit
from corral.compare.report.chapters.tables import figure_cell, side_by_side, unbeaten, verdict_table
from corral.compare.report.criteria import Criterion
from corral.compare.report.document import Block, Cell, Chapter, Details, Heading, Paragraph, Plot, Plots, Table
from corral.compare.report.figures import PHASES, Figures
from corral.compare.report.same_work import settings_of
from corral.compare.report.svg import Frame, Row, Series
from corral.compare.results import Start, Usage, Verdict


def resources(figures: Figures, verdicts: Sequence[Verdict]) -> Chapter:
    blocks: list[Block] = []
    timelines = {engine: figures.timeline(engine) for engine in figures.engines}
    if any(timelines.values()):
        blocks += [Heading("Over time"), Plots(_timelines(figures)), _phases(figures)]
    else:
        blocks.append(Paragraph("Processor and memory were not sampled.", "missing"))
    rows = []
    for phase, name in PHASES.items():
        samples = {engine: figures.usage(engine, phase) for engine in figures.engines}
        if any(samples.values()):
            rows.append((f"CPUs busy, {name}", {e: figure_cell(_mean(s), units.number) for e, s in samples.items()}))
            rows.append(
                (f"Memory, {name}", {e: Cell(units.size(_most(s, criteria.memory))) for e, s in samples.items()})
            )
            rows.append((f"Threads, {name}", {e: Cell(units.count(_most(s, _threads))) for e, s in samples.items()}))
    if rows:
        rows = [(title, {e: Cell(c.text, c.tone) for e, c in found.items()}) for title, found in rows]
        note = (
            "CPUs are the mean of all samples, memory and threads the most of any. Memory is proportional (PSS) where "
            "the system tells it, else resident."
        )
        blocks.append(side_by_side("What the process tree takes", figures, rows, note))
    blocks += _by_load(figures, verdicts)
    return Chapter("resources", "Resources", blocks)


def cold(figures: Figures, verdicts: Sequence[Verdict]) -> Chapter:
    rows = [
        (
            "Disk space of the installation",
            {e: Cell(units.size(figures.rows[e].install_bytes)) for e in figures.engines},
        )
    ]
    for criterion in criteria.OF_STARTS:
        best = unbeaten(verdicts, criterion.key, "")
        values = {engine: figures.start_values(engine, criterion.of) for engine in figures.engines}
        if any(values.values()):
            rows.append(
                (
                    criterion.title,
                    {e: figure_cell(v.values(), criterion.form, is_best=e in best) for e, v in values.items()},
                )
            )
    reserved = {engine: settings_of(figures, engine) for engine in figures.engines}
    rows.append(
        (
            "Set aside for keys and values",
            {e: Cell(units.size(s.kv_reserved_bytes if s else None)) for e, s in reserved.items()},
        )
    )
    rows.append(
        ("Memory that loads added to idle", {e: Cell(units.size(_growth(figures, e))) for e in figures.engines})
    )
    table = side_by_side(
        "Starts, and what idling takes", figures, rows, "Median of the starts, lowest and highest below."
    )
    blocks: list[Block] = [table]
    if figures.comparison.starts:
        blocks.append(
            Plots([_start_plot(figures, criterion) for criterion in (criteria.FIRST_WARM, criteria.IDLE_MEMORY)])
        )
    of_starts = [verdict for verdict in verdicts if not verdict.workload]
    if of_starts:
        blocks.append(Details("Verdicts on starts, pair by pair", [verdict_table("Verdicts on starts", of_starts)]))
    return Chapter("cold", "Cold start", blocks)


def _timelines(figures: Figures) -> list[Plot]:
    timelines = {engine: figures.timeline(engine) for engine in figures.engines}
    greatest = units.finite(criteria.memory(usage) for samples in timelines.values() for usage in samples)
    factor, unit = size_unit(greatest)
    ways: tuple[tuple[str, str, Callable[[Usage], float]], ...] = (
        ("CPUs busy on its behalf", "CPUs", lambda usage: usage.cpu),
        ("Memory of the process tree", unit, lambda usage: criteria.memory(usage) * factor),
        ("Threads", "threads", _threads),
    )
    plots = []
    for title, y_label, of in ways:
        said = "; ".join(f"{e}: at most {units.number(_most(s, of))}" for e, s in timelines.items() if s)
        frame = Frame(f"{title}, from the start of the process", said, "seconds", y_label, has_markers=False)
        series = [Series(e, figures.style(e), [(u.at, of(u)) for u in s]) for e, s in timelines.items()]
        plots.append(Plot(title, svg.lines(frame, series)))
    return plots


def _phases(figures: Figures) -> Table:
    """When each phase of the plots began."""
    began: dict[str, dict[str, float]] = {engine: {} for engine in figures.engines}
    for engine, moments in began.items():
        for usage in figures.timeline(engine):
            moments.setdefault(usage.phase, usage.at)
    rows = [
        (name, {e: Cell(units.seconds(moments.get(phase))) for e, moments in began.items()})
        for phase, name in PHASES.items()
    ]
    note = "Seconds since its start, in the round that is drawn: all workloads one after the other."
    return side_by_side("When each phase began", figures, rows, note)


def _by_load(figures: Figures, verdicts: Sequence[Verdict]) -> list[Block]:
    rows = []
    for workload, load in figures.loads.items():
        for criterion in (criteria.CPU, criteria.PEAK_MEMORY):
            best = unbeaten(verdicts, criterion.key, workload)
            values = {engine: figures.values(engine, workload, criterion) for engine in figures.engines}
            if any(values.values()):
                cells = {e: figure_cell(v.values(), criterion.form, is_best=e in best) for e, v in values.items()}
                rows.append((f"{criterion.title}: {load.title}", cells))
    return [side_by_side("What a workload takes", figures, rows)] if rows else []


def _start_plot(figures: Figures, criterion: Criterion[Start]) -> Plot:
    values = {engine: figures.start_values(engine, criterion.of) for engine in figures.engines}
    flat = [value for found in values.values() for value in found.values()]
    factor, unit = size_unit(flat) if criterion is criteria.IDLE_MEMORY else (1.0, "s")
    said = "; ".join(f"{e}: {units.spread(v.values(), criterion.form)}" for e, v in values.items())
    rows = [Row(e, figures.style(e), [value * factor for value in v.values()]) for e, v in values.items()]
    return Plot(criterion.title, svg.bars(Frame(criterion.title, said, unit, ""), rows))


def _growth(figures: Figures, engine: str) -> float | None:
    peak = _most(figures.usage(engine, "load"), criteria.memory)
    idle = units.median(figures.start_values(engine, criteria.IDLE_MEMORY.of).values())
    return None if peak is None or idle is None else max(peak - idle, 0.0)


def _mean(samples: Sequence[Usage]) -> list[float]:
    busy = units.finite(usage.cpu for usage in samples)
    return [sum(busy) / len(busy)] if busy else []


def _most(samples: Sequence[Usage], of: Callable[[Usage], float]) -> float | None:
    return max(units.finite(of(usage) for usage in samples), default=None)


def _threads(usage: Usage) -> float:
    return float(usage.num_threads)
