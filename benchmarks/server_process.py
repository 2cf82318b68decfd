"""Servers as processes: started, waited for, measured, stopped. Only what was started here is ever ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

CORRAL, LLAMA_SERVER, VLLM = "Corral", "llama-server", "vLLM"
MODEL_NAME = "bench"  # what clients call the model, everywhere
HOST = "127.0.0.1"
POLL_SECONDS = 0.02
STOP_SECONDS = 20.0
PORT = "{port}"  # in a command, stands for the port


class ServerError(Exception):
    """A server did not become ready; the text goes into the report."""


@dataclass(frozen=True)
class Server:
    """How one server is run.

    Args:
        command: with PORT where the port goes.
        environment: what is set beside one's own variables.
        min_tokens: the request also says min_tokens.
        ready_seconds: how long a start may take.
    """

    name: str
    command: tuple[str, ...]
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)
    min_tokens: bool = False
    ready_seconds: float = 60.0

    def no_early_stop(self, num_tokens: int) -> dict[str, Any]:
        """Fields of a request that keep the answer from ending before its last token."""
        return {"ignore_eos": True} | ({"min_tokens": num_tokens} if self.min_tokens else {})


def corral(model: Path, flags: Sequence[str], version: str) -> Server:
    """`corral serve` by this interpreter, settings as they come."""
    command = (sys.executable, "-m", "corral", "serve", str(model), "--host", HOST, "--port", PORT)
    return Server(CORRAL, (*command, "--served-model-name", MODEL_NAME, *flags), version)


def llama_server(program: Path, model: Path, num_threads: int, flags: Sequence[str], version: str) -> Server:
    """32 slots of 1,024 tokens, unless `flags` say otherwise."""
    command = (str(program), "-m", str(model), "-t", str(num_threads), "-np", "32", "-c", "32768")
    return Server(LLAMA_SERVER, (*command, "--host", HOST, "--port", PORT, "--alias", MODEL_NAME, *flags), version)


def vllm(program: Path, folder: Path, flags: Sequence[str], version: str) -> Server:
    """`folder` has the model as bf16 safetensors: this server reads no GGUF."""
    command = (str(program), "serve", str(folder), "--dtype", "bfloat16", "--max-model-len", "4096")
    more = ("--max-num-seqs", "64", "--host", HOST, "--port", PORT, "--served-model-name", MODEL_NAME, *flags)
    environment = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    return Server(VLLM, (*command, *more), version, environment, min_tokens=True, ready_seconds=900.0)


class RunningServer:
    """with RunningServer(server, log) as running: ... ; ends the whole tree of processes."""

    def __init__(self, server: Server, log: Path) -> None:
        self._server = server
        self._log = log
        self._port = _free_port()
        self.url = f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        command = [part.replace(PORT, str(self._port)) for part in self._server.command]
        self.started = time.perf_counter()
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self._server.environment},
                )
            except OSError as error:
                raise ServerError(f"{Path(command[0]).name} cannot be started: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tree = self._tree()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(tree, timeout=STOP_SECONDS)
        self._process.wait()

    def wait_ready(self) -> float:
        """Seconds from the start of the process until /health says yes. Raises ServerError."""
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while (elapsed := time.perf_counter() - self.started) < self._server.ready_seconds:
                if (code := self._process.poll()) is not None:
                    raise ServerError(f"it ended with code {code} before it was ready: {self._last_words()}")
                with contextlib.suppress(httpx.HTTPError):
                    if client.get(f"{self.url}/health").status_code == httpx.codes.OK:
                        return time.perf_counter() - self.started
                time.sleep(POLL_SECONDS)
        raise ServerError(f"it was not ready after {elapsed:.0f} s: {self._last_words()}")

    def front(self) -> psutil.Process:
        """The process that was started; others are its children."""
        return psutil.Process(self._process.pid)

    def resident_bytes(self) -> int:
        """RSS of all processes of the server; pages that two of them share count twice."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def cpu_seconds(self) -> float:
        """CPU time of all processes of the server that are still there, and of their ended children."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
        return total

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " / ".join(lines[-2:])[-300:] or "it said nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
