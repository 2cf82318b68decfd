"""From process start to the first token: `corral run`, `corral serve` and llama-server, interleaved.

    python -m benchmarks.cold_start --model model.gguf [--llama-server PATH] [--repeats 5]

Writes benchmarks/results/cold-start-<machine>-<model>-<date>.json and .md, and prints the table. See
benchmarks/README.md for the method.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine
from benchmarks.cold_start_report import Run, markdown

from corral import _native
from corral.compare import page_cache
from corral.compare.process import free_port
from corral.config import cache_home

RESULTS = Path(__file__).parent / "results"
MIN_REPEATS = 5
MAX_ATTEMPTS = 4  # of a turn that others disturb
TIMEOUT_S = 300.0
POLL_S = 0.002
PROMPT = "hi"
MAX_TOKENS = 4

Turn = Callable[[], dict[str, float]]  # stage -> seconds since the process was started


class TurnError(Exception):
    """A contender that did not start or answer; its text says how it ended."""


class ColdStart:
    """One run: a warm-up of every contender, not counted, then repeats in which each has one turn."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._model: Path = options.model
        self._commands = _commands(options.model, options.llama_server)
        card = machine.machine_card(int(_native.cpu_info()["num_cpus"]))
        if options.llama_server is not None:
            card["llama.cpp"] = _version(options.llama_server)
        if options.note:
            card["note"] = options.note
        self.run = Run(
            model=self._model.name,
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            card=card,
            commands={name: _as_typed(command, self._model) for name, command in self._commands.items()},
        )

    def measure(self, repeats: int) -> Run:
        """All turns; `failures` holds what could not be run."""
        turns = {name: self._turn_of(name, command) for name, command in self._commands.items()}
        for name, turn in list(turns.items()):
            print(f"warming up {name}", file=sys.stderr, flush=True)
            try:
                turn()  # packs the weights for the cache, and compiles Python files
            except TurnError as error:
                self.run.failures[name] = str(error)
                del turns[name]
        for repeat in range(repeats):
            print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
            for name, turn in turns.items():
                self._counted_turn(name, turn)
        return self.run

    def _turn_of(self, name: str, command: list[str]) -> Turn:
        if name.startswith("corral run"):
            return lambda: one_shot_turn(command)
        return lambda: server_turn(command)

    def _counted_turn(self, name: str, turn: Turn) -> None:
        attempts: list[tuple[float, dict[str, float]]] = []
        while not attempts or (attempts[-1][0] > machine.MAX_FOREIGN and len(attempts) < MAX_ATTEMPTS):
            page_cache.warm((self._model, *(cache_home() / "packed").glob("*.packed")))
            try:
                with machine.ForeignLoad() as foreign:
                    stages = turn()
            except TurnError as error:
                self.run.failures[name] = str(error)
                return
            attempts.append((foreign.share, stages))
        share, stages = min(attempts, key=lambda attempt: attempt[0])
        self.run.foreign.append(round(share, 3))
        self.run.num_rejected += len(attempts) - 1
        for stage, seconds in stages.items():
            self.run.seconds.setdefault(name, {}).setdefault(stage, []).append(round(seconds, 4))


def one_shot_turn(command: list[str]) -> dict[str, float]:
    """Starts a program that answers on stdout; seconds to the first byte of the answer, and to its end."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(1)
        first_s = time.perf_counter() - started
        process.stdout.read()
        words = process.stderr.read()
        code = process.wait()
        exit_s = time.perf_counter() - started
    if code != 0 or not first:
        raise TurnError(f"ended with {code}: {words[-500:].decode(errors='replace').strip()}")
    return {"first token": first_s, "exit": exit_s}


def server_turn(command: list[str]) -> dict[str, float]:
    """Starts a server; seconds until /health says 200, and until the first token of an answer over HTTP."""
    port = free_port()
    started = time.perf_counter()
    with _running([*command, "--port", str(port)]) as process:
        _wait_until_healthy(process, port)
        ready_s = time.perf_counter() - started
        _first_token(port)
        first_s = time.perf_counter() - started
    return {"ready": ready_s, "first token": first_s}


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise TurnError(f"ended with {code} before it was ready")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(POLL_S)
    raise TurnError(f"not ready within {TIMEOUT_S:.0f} s")


def _first_token(port: int) -> None:
    """Returns when the first piece of an answer's text has come."""
    body = {
        "model": "model",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise TurnError(f"status {response.status}: {response.read()[:500].decode(errors='replace')}")
        for line in response:
            if line.startswith(b"data: {"):
                choices = json.loads(line[len(b"data: ") :]).get("choices") or [{}]
                if choices[0].get("delta", {}).get("content"):
                    return
    raise TurnError("the answer had no text")


def _commands(model: Path, llama_server: Path | None) -> dict[str, list[str]]:
    corral = [sys.executable, "-m", "corral"]
    one_shot = [*corral, "run", str(model), PROMPT, "--temperature", "0", "--max-tokens", str(MAX_TOKENS)]
    commands = {
        "corral run": one_shot,
        "corral run --no-cache": [*one_shot, "--no-cache"],
        "corral serve": [*corral, "serve", str(model), "--served-model-name", "model"],
    }
    if llama_server is not None:
        rival = [str(llama_server), "--model", str(model), "--host", "127.0.0.1"]
        commands |= {"llama-server": rival, "llama-server --no-warmup": [*rival, "--no-warmup"]}
    return commands


def _as_typed(command: list[str], model: Path) -> str:
    """Without the folders of this machine."""
    program = "python" if command[0] == sys.executable else Path(command[0]).name
    return " ".join([program, *command[1:]]).replace(str(model), model.name)


def _version(binary: Path) -> str:
    done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("version")]
    return lines[0].removeprefix("version:").strip() if lines else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file, the same for all")
    parser.add_argument("--llama-server", type=Path, help="default: on PATH; without it Corral is measured alone")
    parser.add_argument("--repeats", type=int, default=MIN_REPEATS, help=f"at least {MIN_REPEATS} (the default)")
    parser.add_argument("--note", help="goes into the machine card; say how llama.cpp was built")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    if options.repeats < MIN_REPEATS:
        parser.error(f"--repeats is {options.repeats}; medians need at least {MIN_REPEATS}")
    if not options.model.is_file():
        parser.error(f"--model {options.model} is not a file")
    if options.llama_server is None and (found := shutil.which("llama-server")) is not None:
        options.llama_server = Path(found)

    run = ColdStart(options).measure(options.repeats)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = f"cold-start-{machine.machine_name()}-{options.model.stem.lower()}-{run.date[:10]}"
    text = markdown(run)
    (options.output / f"{stem}.json").write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    (options.output / f"{stem}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
