"""A comparison, looked up by engine and workload."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from corral.compare.report import criteria, units
from corral.compare.report.criteria import Criterion
from corral.compare.results import Comparison, EngineRow, LoadCard, LoadRun, Start, Usage

OWN = "corral"  # by this name its losses are told
PHASES = {"start": "while it starts", "idle": "idle", "load": "under load", "after": "idle again"}


class Figures:
    """What the chapters ask a comparison for. Engines and workloads are in the order of the file.

    Args:
        comparison: never changed.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.rows: dict[str, EngineRow] = {row.name: row for row in comparison.engines}
        for name in [*(run.engine for run in comparison.runs), *(start.engine for start in comparison.starts)]:
            self.rows.setdefault(name, EngineRow(name))
        self.engines = [name for name, row in self.rows.items() if not row.missing]
        self.missing = [row for row in self.rows.values() if row.missing]
        self.loads: dict[str, LoadCard] = {load.name: load for load in comparison.loads}
        for run in comparison.runs:
            self.loads.setdefault(run.workload, LoadCard(run.workload, run.workload, "closed"))
        self._runs: dict[tuple[str, str], list[LoadRun]] = {}
        for run in sorted(comparison.runs, key=lambda run: run.repeat):
            self._runs.setdefault((run.engine, run.workload), []).append(run)

    def style(self, engine: str) -> int:
        """Its number in every plot."""
        return self.engines.index(engine) if engine in self.engines else 0

    def runs(self, engine: str, workload: str) -> list[LoadRun]:
        """By repeat."""
        return self._runs.get((engine, workload), [])

    def of_run(self, criterion: Criterion[LoadRun], run: LoadRun) -> float | None:
        """The figure; None too where answers come whole and it is one of streams."""
        is_meant = self.loads[run.workload].is_streamed or not criterion.is_of_stream
        return criterion.of(run) if is_meant else None

    def starts(self, engine: str) -> list[Start]:
        """By repeat."""
        return sorted((start for start in self.comparison.starts if start.engine == engine), key=lambda s: s.repeat)

    def values(self, engine: str, workload: str, criterion: Criterion[LoadRun]) -> dict[int, float]:
        """Repeat -> the figure; repeats without one are left out."""
        return _known({run.repeat: self.of_run(criterion, run) for run in self.runs(engine, workload)})

    def start_values(self, engine: str, of: Callable[[Start], float | None]) -> dict[int, float]:
        """Repeat -> the figure of a start."""
        return _known({start.repeat: of(start) for start in self.starts(engine)})

    def failed(self, engine: str, workload: str) -> tuple[int, int]:
        """Requests that failed, and all of them, over the repeats."""
        runs = self.runs(engine, workload)
        total = sum(len(run.answers) for run in runs)
        return total - sum(len(criteria.good_answers(run)) for run in runs), total

    def clients(self, workload: str) -> int:
        """How many ask at once."""
        load = self.loads[workload]
        if load.kind != "burst":
            return load.concurrency
        counts = [len(run.answers) for run in self.comparison.runs if run.workload == workload]
        return max([load.concurrency, *counts])

    def sweeps(self) -> dict[str, list[str]]:
        """Workloads whose names differ in a number alone and that have other numbers of clients; two or more each."""
        found: dict[str, list[str]] = {}
        for name, load in self.loads.items():
            if load.kind != "open":
                found.setdefault(re.sub(r"\d+", "N", name), []).append(name)
        sweeps = {stem: sorted(names, key=self.clients) for stem, names in found.items()}
        return {stem: names for stem, names in sweeps.items() if len({self.clients(name) for name in names}) > 1}

    def timeline(self, engine: str) -> list[Usage]:
        """All samples of the first repeat that has any: from the start, through its loads, to idle again."""
        repeats = sorted({start.repeat for start in self.starts(engine)} | {r.repeat for r in self._of(engine)})
        for repeat in repeats:
            samples = [u for start in self.starts(engine) if start.repeat == repeat for u in start.usage]
            samples += [u for run in self._of(engine) if run.repeat == repeat for u in run.usage]
            if samples:
                return sorted({usage.at: usage for usage in samples}.values(), key=lambda usage: usage.at)
        return []

    def usage(self, engine: str, phase: str) -> list[Usage]:
        """Of all repeats."""
        samples = [usage for start in self.starts(engine) for usage in start.usage]
        samples += [usage for run in self._of(engine) for usage in run.usage]
        return [usage for usage in samples if usage.phase == phase]

    def _of(self, engine: str) -> list[LoadRun]:
        return [run for (name, _), runs in self._runs.items() if name == engine for run in runs]


def _known(values: Mapping[int, float | None]) -> dict[int, float]:
    return {repeat: value for repeat, value in values.items() if units.finite([value]) and value is not None}
