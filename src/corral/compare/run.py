"""A comparison: engines take turns, one at a time, so that what drifts on the machine drifts for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from corral.compare.agreement import Encode, agree, is_other_work
from corral.compare.engines.engine import Engine, EngineFailed, EngineMissing, Setup
from corral.compare.engines.typed import typed
from corral.compare.log import file_name
from corral.compare.probing import probe
from corral.compare.process import free_port
from corral.compare.profiles import Make
from corral.compare.results import Comparison, EngineRow, LoadCard
from corral.compare.turn import Entry, Progress, Turn, take_turn
from corral.compare.workload import Workload

REST_S = 3.0  # between two engines: clocks and caches come to rest


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be compared.

    Args:
        setups: of each engine, by its name; they differ in flags alone.
        repeats: turns of each engine.
        make: what the workloads were made with.
        slo: limits within which the greatest rate is looked for; none are none.
        limit_s: of each workload in a turn.
        folder: for what engines prepare; outlives the run, so that a later one finds weights made.
        logs: folder for what each engine prints in its last turn.
    """

    engines: Sequence[Engine]
    setups: dict[str, Setup]
    workloads: Sequence[Workload]
    repeats: int
    make: Make
    encode: Encode
    folder: Path
    logs: Path
    slo: Mapping[str, float] = field(default_factory=dict)
    limit_s: float | None = None


class Run:
    """Fills a Comparison, which may have turns of an earlier run that was broken off; those are not taken again.

    Args:
        save: called after every turn.
        say: a line for whoever watches.
    """

    def __init__(
        self,
        order: Order,
        comparison: Comparison,
        save: Callable[[], None],
        say: Callable[[str], None],
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self._order = order
        self._comparison = comparison
        self._save = save
        self._say = say
        self._progress = progress
        self._entries: list[Entry] = []
        self._answers: dict[str, list[str]] = {}

    async def find(self) -> list[Entry]:
        """Who can take part; why others cannot stands in their rows."""
        comparison, order = self._comparison, self._order
        rows = {row.name: row for row in comparison.engines}
        comparison.loads = [card_of(workload) for workload in order.workloads]
        for engine in order.engines:
            row = rows.setdefault(engine.name, EngineRow(engine.name))
            if row not in comparison.engines:
                comparison.engines.append(row)
            try:
                entry = await asyncio.to_thread(self._enter, engine, row)
            except EngineMissing as error:
                row.missing = str(error)
                self._say(f"{engine.name} takes no part: {error}")
            else:
                row.missing = ""
                self._entries.append(entry)
        return self._entries

    def _enter(self, engine: Engine, row: EngineRow) -> Entry:
        found = engine.find()
        setup, port = self._order.setups[engine.name], free_port()
        launch = engine.launch(found, setup, port, self._order.folder)
        row.version, row.install_bytes = found.version, found.install_bytes
        row.command = typed(launch.argv, launch.environment) if launch.argv else ""
        row.weights, row.digest = launch.weights, launch.digest
        row.steps, row.notes = list(launch.steps), list(launch.notes)
        return Entry(engine, setup, launch, port)

    async def turns(self) -> None:
        """All of them; the order of the engines moves on with each repeat. An engine that fails is not tried again."""
        total = self._order.repeats * len(self._entries)
        for repeat in range(self._order.repeats):
            shift = repeat % max(1, len(self._entries))
            for entry in [*self._entries[shift:], *self._entries[:shift]]:
                name = entry.engine.name
                if self._is_done(name, repeat) or self._row(name).missing:
                    continue
                self._say(f"repeat {repeat + 1} of {self._order.repeats}: {name} (of {total} turns)")
                await self._turn(entry, repeat)
                self._save()
                await asyncio.sleep(REST_S)
        self._agree()
        self._save()

    async def probes(self) -> None:
        """Security, production and conformance, after all that is timed; what has been probed is not probed again."""
        for entry in self._entries:
            row = self._row(entry.engine.name)
            if row.missing or row.checks:
                continue
            self._say(f"probing {row.name}")

            def progress(name: str, done: int, total: int, engine: str = row.name) -> None:
                self._progress(f"{engine}: {name}", done, total)

            row.checks = await probe(entry, self._log(entry), self._say, progress)
            self._save()

    async def _turn(self, entry: Entry, repeat: int) -> None:
        name = entry.engine.name
        try:
            turn = await take_turn(
                entry,
                repeat,
                self._order.workloads,
                self._order.make,
                log=self._log(entry),
                slo=self._order.slo,
                limit_s=self._order.limit_s,
                asks_agreement=name not in self._answers and not self._has_agreement(name),
                is_cold=repeat == 0,
                progress=lambda what, done, of: self._progress(f"{name}: {what}", done, of),
            )
        except EngineFailed as error:
            self._comparison.faults.append(str(error))
            if not any(start.engine == name for start in self._comparison.starts):
                self._row(name).missing = str(error)
            self._say(f"{name} failed: {error}")
            return
        self._book(name, turn, entry)

    def _book(self, name: str, turn: Turn, entry: Entry) -> None:
        row = self._row(name)
        if turn.argv:
            row.command = typed(turn.argv, entry.launch.environment)
        row.notes = list(dict.fromkeys([*row.notes, *turn.notes]))
        ask = row.steps[-1:]  # the first request comes after what has to be done before it
        row.steps = [*row.steps[:-1], *(step for step in turn.steps if step not in row.steps), *ask]
        self._comparison.starts.append(turn.start)
        self._comparison.runs += turn.runs
        if turn.rate is not None:
            self._comparison.rates.append(turn.rate)
        if turn.answers is not None:
            self._answers[name] = turn.answers

    def _agree(self) -> None:
        """Compares with the first engine that has answered."""
        if not self._answers:
            return
        reference = next(entry.engine.name for entry in self._entries if entry.engine.name in self._answers)
        expected = self._answers[reference]
        for name, answers in self._answers.items():
            found = agree(name, answers, reference, expected, self._order.encode)
            self._comparison.agreements.append(found)
            if is_other_work(found):
                self._comparison.faults.append(
                    f"{name} says something else than {reference} from the first words on: template, weights or "
                    "tokenizer differ, and speeds compare different work"
                )

    def _log(self, entry: Entry) -> Path:
        self._order.logs.mkdir(parents=True, exist_ok=True)
        return self._order.logs / f"{file_name(entry.engine.name)}.log"

    def _row(self, name: str) -> EngineRow:
        return next(row for row in self._comparison.engines if row.name == name)

    def _is_done(self, name: str, repeat: int) -> bool:
        has_start = any(one.engine == name and one.repeat == repeat for one in self._comparison.starts)
        ran = {one.workload for one in self._comparison.runs if one.engine == name and one.repeat == repeat}
        return has_start and ran >= {workload.name for workload in self._order.workloads}

    def _has_agreement(self, name: str) -> bool:
        return any(one.engine == name for one in self._comparison.agreements)


def card_of(workload: Workload) -> LoadCard:
    """What the report tells of it."""
    plan = workload.plan
    clients = len(workload.calls(0)) if plan.kind == "burst" else plan.concurrency
    return LoadCard(
        workload.name, workload.title, plan.kind, clients, plan.rate, workload.is_streamed, list(workload.notes)
    )
