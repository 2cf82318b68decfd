"""The matmul kernels alone, for each packed type, as shares of read bandwidth and int8 peak.

    python -m benchmarks.kernel_table --bench build/native/native/bench/matmul_bench [--types Q4_K,Q6_K] [--threads 2]

Writes benchmarks/results/kernels-<machine>-<date>.md and prints it; benchmarks/README.md has the method.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 2, 4, 8, 16, 32, 128, 512)
BANDWIDTH_BATCHES = 4  # up to this many rows the memory is the limit: their share is of the read bandwidth
SHAPES = ((8960, 1536), (1536, 8960))  # of the 1.5B model: gate and up; down
# K-quants first: the order of the table.
TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K")


@dataclass(frozen=True)
class Row:
    """One line of `matmul_bench --json`: rates of the median repetition, GB/s and 1e9 operations/s."""

    type: str
    m: int
    in_l1: bool
    gb_s: float
    read_gb_s: float
    gops: float
    peak_gops: float
    spread: float
    rejected: int

    @property
    def share(self) -> float:
        """Of what limits it: read bandwidth for few rows, else the int8 peak; 0.0 where the CPU has no such peak."""
        if self.m <= BANDWIDTH_BATCHES:
            return self.gb_s / self.read_gb_s
        return self.gops / self.peak_gops if self.peak_gops else 0.0


def parse_row(line: str) -> Row:
    """One line of matmul_bench's JSON; unknown keys are ignored, a missing one is a KeyError."""
    values = json.loads(line)
    return Row(**{name: values[name] for name in Row.__annotations__})


def command(bench: Path, type_name: str, shape: tuple[int, int], threads: int) -> list[str]:
    """The call that measures one type on one shape."""
    batches = ",".join(map(str, BATCHES))
    return [str(bench), type_name, *map(str, shape), f"--m={batches}", f"--threads={threads}", "--l1", "--json"]


def table(rows: list[Row]) -> list[str]:
    """Markdown lines: a row per type, a column per batch size, and the kernel with its operands in L1."""
    head = ["type", *(f"M={m}" for m in BATCHES), "kernel in L1", "GOPS at 32", "GB/s at 1"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in dict.fromkeys(row.type for row in rows):
        memory = {row.m: row for row in rows if row.type == name and not row.in_l1}
        in_l1 = next(row for row in rows if row.type == name and row.in_l1)
        cells = [f"{memory[m].share:.2f}" for m in BATCHES]
        cells += [f"{in_l1.share:.2f}", f"{memory[32].gops:.0f}", f"{memory[1].gb_s:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def page(bench: Path, results: dict[tuple[int, int], list[Row]], threads: int, date: str) -> str:
    """The result file."""
    card = machine.machine_card(threads)
    every = [row for rows in results.values() for row in rows]
    reads = sorted(row.read_gb_s for row in every if not row.in_l1)
    peaks = sorted(row.peak_gops for row in every if not row.in_l1)
    lines = [
        f"# Matmul kernels alone, {card['CPU']}, {date}",
        "",
        *(f"- {name}: {value}" for name, value in card.items()),
        f"- read bandwidth beside the cases: {reads[0]:.1f} to {reads[-1]:.1f} GB/s; "
        f"int8 peak: {peaks[0]:.0f} to {peaks[-1]:.0f} GOPS",
        f"- spread of the repetitions that count: at most {max(row.spread for row in every):.2f} of the median; "
        f"rejected: {sum(row.rejected for row in every)}",
        "",
        f"Shares of the adjacent read bandwidth for M <= {BANDWIDTH_BATCHES}, of the adjacent vpdpbusd peak above; "
        f"{threads} threads, weights from memory. `kernel in L1`: one thread, share of one thread's peak.",
    ]
    for (outputs, inputs), rows in results.items():
        lines += ["", f"## {outputs} outputs of {inputs} inputs", "", *table(rows)]
    call = " ".join(command(Path(bench.name), "TYPE", SHAPES[0], threads))
    return "\n".join([*lines, "", f"Command, for each type and shape: `{call}`", ""])


def main() -> int:
    """Measure, write, print; 2 if matmul_bench fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="matmul_bench of a native build with tests")
    parser.add_argument("--types", default=",".join(TYPES), help="comma-separated types")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    results: dict[tuple[int, int], list[Row]] = {}
    for shape in SHAPES:
        for name in options.types.split(","):
            call = command(options.bench, name, shape, options.threads)
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(f"{' '.join(call)} ended with {done.returncode}: {done.stderr.strip()}", file=sys.stderr)
                return 2
            results.setdefault(shape, []).extend(map(parse_row, done.stdout.splitlines()))
    date = datetime.date.today().isoformat()
    text = page(options.bench, results, options.threads, date)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"kernels-{machine.machine_name()}-{date}.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
