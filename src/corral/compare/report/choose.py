"""What to choose when, by rules over the verdicts: no sentence without the figures that it stands on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from corral.compare.report import criteria, units
from corral.compare.report.figures import Figures
from corral.compare.report.ratio import inverse
from corral.compare.report.same_work import doubts
from corral.compare.report.verdicts import fails_often, greatest_rates, interval_text
from corral.compare.results import Verdict

LEAST_RATIO = 1.1  # a lead below is no reason to choose
MOST_ELSEWHERE = 4  # workloads that a sentence names beside its own, the greatest leads first

_WISHES = {
    "output_rate": "the most text in all matters",
    "first_token_p50": "the first word has to come soon",
    "token_time_p50": "each answer has to flow fast",
    "latency_p50": "whole answers have to be done soon",
    "cpu_per_1000": "the processor is wanted for other things too",
    "peak_memory": "memory is scarce under load",
    "fairness": "no client may wait far longer than others",
    "ready_warm": "it has to be ready soon after a start",
    "first_warm": "it is started for single questions",
    "first_cold": "it is started on a machine that has just booted",
    "idle_memory": "it is mostly idle",
    "greatest_rate": "requests come at random and have to keep the limits",
}


class Reason(NamedTuple):
    """A wish, and the figures that speak for or against an engine where somebody has it."""

    wish: str
    evidence: str


@dataclass(slots=True)
class Choice:
    """What the measurements say of one engine.

    Args:
        reasons: to choose it: it beats every other engine.
        losses: where another engine beats it.
        warnings: why its figures may not be comparable.
    """

    engine: str
    reasons: list[Reason] = field(default_factory=list)
    losses: list[Reason] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def choices(figures: Figures, verdicts: Sequence[Verdict]) -> list[Choice]:
    """For every engine that was run, in the order of the report."""
    found = []
    doubtful = doubts(figures)
    for engine in figures.engines:
        choice = Choice(engine)
        choice.reasons = _reasons(figures, _wins(figures, verdicts, engine), engine)
        choice.losses = _reasons(figures, _losses(verdicts, engine), engine)
        less, more = _disk(figures, engine)
        choice.reasons += less
        choice.losses += more + _failures(figures, engine) + _lost_checks(figures, engine)
        choice.warnings = doubtful.get(engine, [])
        found.append(choice)
    return found


def lead(verdict: Verdict) -> float:
    """How many times better the winner is."""
    return verdict.ratio if verdict.winner == verdict.first else inverse(verdict.ratio)


def _reasons(figures: Figures, verdicts: Iterable[Verdict], engine: str) -> list[Reason]:
    """One reason a wish, of its greatest lead; the greatest of all first."""
    by_wish: dict[str, list[Verdict]] = {}
    for verdict in sorted(verdicts, key=lead, reverse=True):
        by_wish.setdefault(verdict.criterion, []).append(verdict)
    return [
        Reason(_WISHES[wish], _evidence(figures, found[0], engine) + _elsewhere(figures, found[1:]))
        for wish, found in by_wish.items()
    ]


def _wins(figures: Figures, verdicts: Sequence[Verdict], engine: str) -> list[Verdict]:
    """Where the engine beats every other that could be compared with it, the verdict over the next best."""
    found = []
    for (criterion, workload), group in _groups(verdicts).items():
        own = [verdict for verdict in group if engine in (verdict.first, verdict.second)]
        # One that fails its requests is no rival: its latencies are those of the few that it answered.
        own = [v for v in own if v.winner or not fails_often(figures, _other(v, engine), workload)]
        if criterion in _WISHES and own and all(v.winner == engine and lead(v) >= LEAST_RATIO for v in own):
            found.append(min(own, key=lead))
    return found


def _other(verdict: Verdict, engine: str) -> str:
    return verdict.second if engine == verdict.first else verdict.first


def _losses(verdicts: Sequence[Verdict], engine: str) -> list[Verdict]:
    """Where another engine beats it, the verdict of the best one."""
    found = []
    for (criterion, _), group in _groups(verdicts).items():
        lost = [v for v in group if engine in (v.first, v.second) and v.winner not in ("", engine)]
        lost = [verdict for verdict in lost if lead(verdict) >= LEAST_RATIO]
        if criterion in _WISHES and lost:
            found.append(max(lost, key=lead))
    return found


def _groups(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], list[Verdict]]:
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.criterion, verdict.workload), []).append(verdict)
    return groups


def _evidence(figures: Figures, verdict: Verdict, engine: str) -> str:
    other = _other(verdict, engine)
    own_value, other_value = (median_text(figures, verdict, name) for name in (engine, other))
    where = f", with {figures.loads[verdict.workload].title}" if verdict.workload else ""
    figures_text = f"{verdict.title}{where}: {own_value} against {other_value} of {other}"
    if math.isinf(lead(verdict)):
        return f"{figures_text}."
    low, high = (1.0 if verdict.low is None else verdict.low), (1.0 if verdict.high is None else verdict.high)
    is_first = verdict.winner == verdict.first
    interval = interval_text(low, high) if is_first else interval_text(inverse(high), inverse(low))
    return f"{figures_text}, {lead(verdict):.3g} times ({interval})."


def _elsewhere(figures: Figures, verdicts: Sequence[Verdict]) -> str:
    """The same with other workloads, or ""."""
    named = [
        f"{figures.loads[v.workload].title} ({lead(v):.3g} times)" for v in verdicts[:MOST_ELSEWHERE] if v.workload
    ]
    more = len(verdicts) - len(named)
    return f" Also with {', '.join(named)}{f', and {more} more' if more else ''}." if named else ""


def median_text(figures: Figures, verdict: Verdict, engine: str) -> str:
    """An engine's median in the criterion of a verdict."""
    for criterion in criteria.MEASURED:
        if criterion.key == verdict.criterion:
            return criterion.form(units.median(figures.values(engine, verdict.workload, criterion).values()))
    for start_criterion in criteria.OF_STARTS:
        if start_criterion.key == verdict.criterion:
            return start_criterion.form(units.median(figures.start_values(engine, start_criterion.of).values()))
    return criteria.GREATEST_RATE.form(units.median(greatest_rates(figures)[engine].values()))


def _disk(figures: Figures, engine: str) -> tuple[list[Reason], list[Reason]]:
    """For and against it by the size of its installation, which no repeat changes."""
    sizes = {name: size for name in figures.engines if (size := figures.rows[name].install_bytes)}
    if engine not in sizes or len(sizes) < 2:
        return [], []
    own = sizes.pop(engine)
    least = min(sizes, key=lambda name: sizes[name])
    told = [
        Reason(
            "disk space is scarce",
            f"Disk space of the installation: {units.size(own)} against {units.size(sizes[least])} of {least}.",
        )
    ]
    if own * LEAST_RATIO <= sizes[least]:
        return told, []
    return [], told if own >= sizes[least] * LEAST_RATIO else []


def _failures(figures: Figures, engine: str) -> list[Reason]:
    found = []
    for workload, load in figures.loads.items():
        failed, total = figures.failed(engine, workload)
        if fails_often(figures, engine, workload):
            found.append(Reason("no request may fail", f"{load.title}: {failed} of {total} failed."))
    return found


def _lost_checks(figures: Figures, engine: str) -> list[Reason]:
    """One reason an area, with the checks that another engine passes and this one does not."""
    found = []
    checks = figures.rows[engine].checks
    for area in dict.fromkeys(check.area for check in checks):
        passed_elsewhere = {
            check.name
            for name in figures.engines
            for check in figures.rows[name].checks
            if name != engine and check.area == area and check.verdict == "pass"
        }
        lost = [c.name for c in checks if c.area == area and c.verdict == "fail" and c.name in passed_elsewhere]
        if lost:
            found.append(Reason(f"{area} counts", f"It fails what another engine passes: {', '.join(lost)}."))
    return found
