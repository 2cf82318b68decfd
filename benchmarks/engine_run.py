"""What a comparison of engines measured: the JSON file is a Run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.cells import Cell
from benchmarks.machine import Limits
from benchmarks.work import MatmulWork

CORRAL = "Corral"
ONE_THREAD = "Corral, 1 thread"
LLAMA_CPP = "llama.cpp"
OPENVINO = "OpenVINO GenAI"


@dataclass(frozen=True)
class Turn:
    """One contender's cells, from one process, or two for llama.cpp's two programs.

    Args:
        speeds: cell name -> tokens per second.
        foreign: share of all CPUs that other processes took meanwhile.
        before, after: the machine's limits just then.
    """

    contender: str
    repeat: int
    speeds: dict[str, float]
    foreign: float
    before: Limits
    after: Limits


@dataclass
class Run:
    """Everything that was measured.

    Args:
        commands: contender -> its commands, without the folders of the machine.
        failures: what could not be run -> why.
        num_rejected: turns that were taken again because others took CPU time.
    """

    model: str
    date: str
    card: dict[str, str]
    cells: list[Cell]
    work: MatmulWork
    repeats: int
    commands: dict[str, list[str]] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    num_rejected: int = 0

    def contenders(self) -> list[str]:
        """Those that have a turn, in order."""
        return list(dict.fromkeys(turn.contender for turn in self.turns))

    def speeds(self, contender: str, cell: Cell) -> dict[int, float]:
        """Repeat -> tokens per second."""
        own = (turn for turn in self.turns if turn.contender == contender)
        return {turn.repeat: turn.speeds[cell.name] for turn in own if cell.name in turn.speeds}

    def fastest(self, contenders: Iterable[str], cell: Cell) -> str | None:
        """The contender with the highest median in the cell; None if none has a figure."""
        medians = {name: statistics.median(found.values()) for name in contenders if (found := self.speeds(name, cell))}
        return max(medians, key=lambda name: medians[name]) if medians else None
