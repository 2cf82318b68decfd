"""Who takes part in a comparison of engines: a name, cells, and a way to time them in fresh processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.cells import Cell, Regime, dump
from benchmarks.engine_run import CORRAL, LLAMA_CPP, ONE_THREAD, OPENVINO
from benchmarks.llama_cells import ALL_FLAGS, DEFAULT, Flags, LlamaCpp, RivalError
from benchmarks.machine import package_versions

ROOT = Path(__file__).parent.parent
WORTH_A_TURN = 1.03  # flags that gain less over the defaults are left out
CALIBRATION_ANSWER = 8
START_SECONDS = 4.0  # to load a model, for planning


@dataclass(frozen=True)
class Contender:
    """One engine with its settings.

    Args:
        cells: those it is timed on.
        measure: cell name -> tokens per second. Raises RivalError.
        commands: what measure() runs. Raises RivalError.
    """

    name: str
    num_threads: int
    cells: tuple[Cell, ...]
    measure: Callable[[Sequence[Cell]], dict[str, float]]
    commands: Callable[[Sequence[Cell]], list[list[str]]]


def corral(model: Path, num_threads: int, cells: Sequence[Cell], *, name: str = CORRAL) -> Contender:
    """Through its engine, by the interpreter that runs the comparison."""
    return _module(name, "benchmarks.corral_cells", Path(sys.executable), model, num_threads, cells)


def corral_one_thread(model: Path, cells: Sequence[Cell], batch: int) -> Contender:
    """For the scaling: prefill, one stream and one batch."""
    chosen = [cell for cell in cells if cell.regime is not Regime.BATCHED or cell.streams == batch]
    return corral(model, 1, chosen, name=ONE_THREAD)


def openvino(python: Path, model: Path, num_threads: int, cells: Sequence[Cell]) -> Contender:
    """`python`: the interpreter of an environment with openvino-genai."""
    return _module(OPENVINO, "benchmarks.openvino_cells", python, model, num_threads, cells)


def openvino_version(python: Path) -> str:
    """Of its distributions."""
    return package_versions(python, "openvino-genai", "openvino")


def llama(programs: LlamaCpp, model: Path, num_threads: int, cells: Sequence[Cell], flags: Flags) -> Contender:
    """llama.cpp with one set of flags."""
    return Contender(
        name=f"{LLAMA_CPP}, {flags}",
        num_threads=num_threads,
        cells=tuple(cells),
        measure=lambda chosen: programs.measure(model, num_threads, chosen, flags),
        commands=lambda chosen: programs.commands(model, num_threads, chosen, flags),
    )


def calibration_cells(cells: Sequence[Cell]) -> list[Cell]:
    """Short versions that tell flags apart: the smallest batch, and one of 32 or less."""
    batches = sorted((cell for cell in cells if cell.regime is Regime.BATCHED), key=lambda cell: cell.streams)
    ends = dict.fromkeys([*batches[:1], *[cell for cell in batches if cell.streams <= 32][-1:]])
    return [
        *(cell for cell in cells if cell.regime is not Regime.BATCHED),
        *(replace(cell, prompt=CALIBRATION_ANSWER, answer=CALIBRATION_ANSWER) for cell in ends),
    ]


def best_flags(found: dict[Flags, dict[str, float]], cells: Sequence[Cell]) -> dict[Regime, Flags]:
    """For each regime the flags with the best geometric mean over its cells, if they are worth more than the defaults.

    Args:
        found: what calibration measured; flags without a figure for every cell of a regime do not win there.
        cells: the calibration's.
    """
    best: dict[Regime, Flags] = {}
    for regime in Regime:
        names = [cell.name for cell in cells if cell.regime is regime]
        scores = {
            flags: math.prod(speeds[name] for name in names) ** (1 / len(names))
            for flags, speeds in found.items()
            if names and all(name in speeds for name in names)
        }
        if not scores:
            continue
        winner = max(scores, key=lambda flags: scores[flags])
        if DEFAULT not in scores or scores[winner] > WORTH_A_TURN * scores[DEFAULT]:
            best[regime] = winner
    return best


def calibrate(
    programs: LlamaCpp, model: Path, num_threads: int, cells: Sequence[Cell], say: Callable[[str], None]
) -> tuple[dict[Regime, Flags], dict[str, str]]:
    """One turn, not counted, with each set of flags: the best for each regime, and what failed with its reason."""
    found: dict[Flags, dict[str, float]] = {}
    failures: dict[str, str] = {}
    short = calibration_cells(cells)
    for flags in ALL_FLAGS:
        say(f"calibrating {LLAMA_CPP}, {flags}")
        try:
            found[flags] = programs.measure(model, num_threads, short, flags)
        except RivalError as error:
            failures[f"{LLAMA_CPP}, {flags}"] = str(error)
    return best_flags(found, short), failures


def _module(name: str, module: str, python: Path, model: Path, num_threads: int, cells: Sequence[Cell]) -> Contender:
    """A contender whose turn is `python -m module`, which prints one JSON object on a line of its own."""

    def commands(chosen: Sequence[Cell]) -> list[list[str]]:
        arguments = ["--model", str(model), "--threads", str(num_threads), "--cells", dump(chosen)]
        return [[str(python), "-m", module, *arguments]]

    def measure(chosen: Sequence[Cell]) -> dict[str, float]:
        (command,) = commands(chosen)
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RivalError(f"{python.name} cannot be started: {error.strerror}") from error
        if done.returncode != 0:
            last_words = done.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
            raise RivalError(f"{module} ended with code {done.returncode}: {last_words[0][:300]}")
        objects = [line for line in done.stdout.splitlines() if line.startswith("{")]  # libraries chatter too
        if not objects:
            raise RivalError(f"{module} printed no figures")
        speeds: dict[str, float] = json.loads(objects[-1])
        return speeds

    return Contender(name, num_threads, tuple(cells), measure, commands)
