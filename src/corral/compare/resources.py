"""What an engine takes over time: a thread that reads /proc a few times a second.

Five samples a second take about 1 % of one CPU on a machine of 100 processes; what it was stands in `cost_cpu`. Half is
for finding the processes of the tree, so that is done once a second when it has started. PSS makes the kernel walk page
tables, with a lock that the engine may want: it is read for at most a fiftieth of the time, and samples between carry
the last value.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from corral.compare.results import Usage

HERTZ = 5.0
TREE_S = 1.0  # between two looks for new processes; while it starts, each sample looks
PSS_SHARE = 0.02  # of the time, at most
PSS_S = 0.5  # between two readings of PSS, at least

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Share:
    """Of a stretch of time: CPUs busy for the engine, for this process, and for neither; its samples."""

    engine_cpu: float
    client_cpu: float
    foreign_cpu: float
    usage: list[Usage]


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment; opaque."""

    at: float
    engine_s: float
    client_s: float
    busy_s: float
    num_samples: int


@dataclass(slots=True)
class _Totals:
    """CPU seconds of a tree, ended members too, as far as they were seen."""

    last: dict[tuple[int, str], float] = field(default_factory=dict)
    ended_s: float = 0.0

    def seconds(self, now: dict[tuple[int, str], float]) -> float:
        self.ended_s += sum(seconds for key, seconds in self.last.items() if key not in now)
        self.last = now
        return self.ended_s + sum(now.values())


class Sampler:
    """with Sampler(server.tree) as sampler: sampler.phase = "load"; ...; sampler.usage

    Args:
        tree: process numbers to watch; none are fine, for an engine that runs elsewhere.
        began: `at` of the samples counts from here, by time.perf_counter(); None is now.
    """

    def __init__(self, tree: Callable[[], Sequence[int]], began: float | None = None, hertz: float = HERTZ) -> None:
        self.phase = "start"
        self.usage: list[Usage] = []
        self.cost_cpu = 0.0  # CPUs that sampling itself took, of client_cpu
        self._tree = tree
        self._members: Sequence[int] = ()
        self._members_due = 0.0
        self._began = time.perf_counter() if began is None else began
        self._period = 1.0 / hertz
        self._totals = _Totals()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._pss: int | None = None
        self._pss_due = 0.0
        self._pss_of: set[int] = set()
        self._previous: tuple[float, float, float] | None = None  # time, engine, client

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wanted.set()
        self._thread.join()

    def sample(self) -> Usage:
        """One more, now."""
        with self._lock:
            return self._sample()

    def mark(self) -> Mark:
        with self._lock:
            now, engine_s, client_s = self._cpu(self._read())
            return Mark(now, engine_s, client_s, _busy_s(), len(self.usage))

    def since(self, mark: Mark) -> Share:
        """From `mark` until now, with one sample at the least."""
        with self._lock:
            if len(self.usage) == mark.num_samples:
                self._sample()
            now, engine_s, client_s = self._cpu(self._read())
            wall = max(now - mark.at, 1e-9)
            engine, client = (engine_s - mark.engine_s) / wall, (client_s - mark.client_s) / wall
            foreign = max(0.0, (_busy_s() - mark.busy_s) / wall - engine - client)
            return Share(engine, client, foreign, [replace(usage) for usage in self.usage[mark.num_samples :]])

    def _run(self) -> None:
        began, due, cost = time.perf_counter(), time.perf_counter(), 0.0
        while not self._wanted.wait(max(0.0, due - time.perf_counter())):
            before = time.thread_time()
            with self._lock:
                self._sample()
            cost += time.thread_time() - before
            due = max(due + self._period, time.perf_counter())
        self.cost_cpu = cost / max(time.perf_counter() - began, 1e-9)

    def _sample(self) -> Usage:
        processes = self._read()
        now, engine_s, client_s = self._cpu(processes)
        then, engine_then, client_then = self._previous or (now, engine_s, client_s)
        wall = max(now - then, 1e-9)
        self._previous = (now, engine_s, client_s)
        usage = Usage(
            at=now - self._began,
            phase=self.phase,
            cpu=max(0.0, engine_s - engine_then) / wall,
            client_cpu=max(0.0, client_s - client_then) / wall,
            resident_bytes=sum(process.resident_bytes for process in processes),
            proportional_bytes=self._proportional(processes),
            num_threads=sum(process.num_threads for process in processes),
            num_processes=len(processes),
        )
        self.usage.append(usage)
        return usage

    def _read(self) -> list[_Process]:
        if (now := time.perf_counter()) >= self._members_due or self.phase == "start":
            self._members, self._members_due = self._tree(), now + TREE_S
        processes = [process for pid in self._members if (process := _process(pid)) is not None]
        if len(processes) < max(1, len(self._members)):
            self._members_due = 0.0  # some have ended, or none is there yet: the next sample looks again
        return processes

    def _cpu(self, processes: Sequence[_Process]) -> tuple[float, float, float]:
        seconds = self._totals.seconds({(process.pid, process.began): process.cpu_s for process in processes})
        return time.perf_counter(), seconds, time.process_time()

    def _proportional(self, processes: Sequence[_Process]) -> int | None:
        began = time.perf_counter()
        now_there = {process.pid for process in processes}
        if began < self._pss_due and now_there == self._pss_of:
            return self._pss
        self._pss_of = now_there
        found = [_pss(process.pid) for process in processes]
        known = [value for value in found if value is not None]
        self._pss = sum(known) if known else None
        took = time.perf_counter() - began
        self._pss_due = began + max(PSS_S, took / PSS_SHARE)
        return self._pss


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    began: str
    cpu_s: float
    num_threads: int
    resident_bytes: int


def _process(pid: int) -> _Process | None:
    """Of /proc/PID/stat; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # its name, in brackets, may have blanks and brackets
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
    return _Process(pid, fields[19], cpu_s, int(fields[17]), int(fields[21]) * _PAGE)


def _pss(pid: int) -> int | None:
    """Shared pages divided among those that share them; None where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return None


def _busy_s() -> float:
    """CPU seconds of the whole machine, those too that its host took from it."""
    cpu = psutil.cpu_times()
    return float(cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq + cpu.steal)
