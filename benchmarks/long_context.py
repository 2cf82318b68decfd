"""What attention costs in a decode step: blocks of one's own beside shared ones, f16 beside int8.

    pip install '.[test]' && python -m benchmarks.long_context [--model NAME] [--threads 1] [16x1500 32x352 ...]

SxC are S sequences with C tokens of context each. The forward pass alone is timed, without sampling. Attention is the
step's time less that of the same step at position 0. All variants take turns, step by step; with one thread it is CPU
time that counts, which a busy machine spoils less. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import numpy.typing as npt
from benchmarks.machine import machine_name
from tests.support.models import MODELS, model_path
from tests.support.native_runner import NativeRunner

from corral import _native
from corral.config import BLOCK_SIZE

Ints = npt.NDArray[np.int32]
HEAD = (
    "| sequences x context | cache | step at position 0, ms | own blocks | shared | attention, own blocks | shared "
    "| KV read, MB | GB/s |"
)


def ints(values: object) -> Ints:
    return np.ascontiguousarray(values, dtype=np.int32)


class Contexts:
    """S sequences with C tokens each, the same ones, in one form of the cache."""

    def __init__(self, name: str, dtype: str, num_seqs: int, context: int, num_threads: int) -> None:
        table_blocks = -(-(context + 1) // BLOCK_SIZE)
        num_blocks = (num_seqs + 1) * table_blocks
        self.runner = NativeRunner(
            model_path(name), num_threads=num_threads, num_tokens=num_blocks * BLOCK_SIZE, kv_dtype=dtype
        )
        rng = np.random.default_rng(0)
        self.tokens = ints(rng.integers(0, self.runner.config.vocab_size, context))
        self.num_seqs = num_seqs
        self.context = context
        tables = ints(rng.permutation(num_blocks)).reshape(num_seqs + 1, table_blocks)
        self.own = tables[1:]
        self.shared = self.own.copy()
        self.shared[:, : context // BLOCK_SIZE] = tables[0, : context // BLOCK_SIZE]
        for start in range(0, context, self.runner.max_tokens):
            part = self.tokens[start : start + self.runner.max_tokens]
            self.runner.decoder.forward(part, ints([0, len(part)]), ints([start]), tables[:1], ints([]))
        for table in self.own:
            self.runner.kv_cache.copy_blocks(tables[0], ints(table))

    @property
    def kv_bytes(self) -> int:
        return self.num_seqs * self.context * self.runner.kv_cache.block_bytes // BLOCK_SIZE

    def step(self, position: int, tables: Ints) -> None:
        """One token of each sequence."""
        rows = np.arange(self.num_seqs, dtype=np.int32)
        offsets = np.arange(self.num_seqs + 1, dtype=np.int32)
        starts = np.full(self.num_seqs, position, np.int32)
        tokens = ints(np.resize(self.tokens, self.num_seqs))
        self.runner.decoder.forward(tokens, offsets, starts, ints(tables), rows)


def measure(name: str, num_seqs: int, context: int, num_threads: int, repeats: int) -> list[str]:
    """Lines of the table: medians."""
    clock = time.thread_time if num_threads == 1 else time.perf_counter
    forms = {dtype: Contexts(name, dtype, num_seqs, context, num_threads) for dtype in ("f16", "int8")}
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for dtype, form in forms.items():
            for kind, position, tables in (
                ("none", 0, form.own),
                ("own", context, form.own),
                ("shared", context, form.shared),
            ):
                begin = clock()
                form.step(position, tables)
                seconds.setdefault((dtype, kind), []).append(clock() - begin)
    lines = []
    for dtype, form in forms.items():
        none, own, shared = (float(np.median(seconds[dtype, kind])) * 1e3 for kind in ("none", "own", "shared"))
        rate = form.kv_bytes / (own - none) / 1e6
        lines.append(
            f"| {num_seqs} x {context:,} | {dtype} | {none:.1f} | {own:.1f} | {shared:.1f} | {own - none:.1f} "
            f"| {shared - none:.1f} | {form.kv_bytes / 1e6:.0f} | {rate:.1f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["16x1500", "32x352", "32x1504"], metavar="SxC")
    parser.add_argument("--model", default="qwen2.5-coder-1.5b", choices=MODELS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    clock = "CPU time" if options.threads == 1 else "wall time"
    print(f"{options.model}, {options.threads} threads, {clock}, {_native.cpu_info()['isa']}, {machine_name()}\n")
    print(HEAD + "\n" + "|---" * (HEAD.count("|") - 1) + "|")
    for case in options.cases:
        num_seqs, context = map(int, case.split("x"))
        for line in measure(options.model, num_seqs, context, options.threads, options.repeats):
            print(line, flush=True)


if __name__ == "__main__":
    main()
