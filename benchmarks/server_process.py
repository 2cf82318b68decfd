"""A server as a process: started, waited for, stopped. Only what was started here is ever ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

MODEL_NAME = "bench"  # what clients call the model
HOST = "127.0.0.1"
POLL_SECONDS = 0.02
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
PORT = "{port}"  # in a command, stands for the port


class ServerError(Exception):
    """The server did not become ready; the text goes into the report."""


def corral(model: Path) -> tuple[str, ...]:
    """`corral serve` by this interpreter, settings as they come."""
    command = (sys.executable, "-m", "corral", "serve", str(model), "--host", HOST, "--port", PORT)
    return (*command, "--served-model-name", MODEL_NAME)


class RunningServer:
    """with RunningServer(command, log) as running: ... ; ends the whole tree of processes.

    Args:
        command: with PORT where the port goes.
        environment: what is set beside one's own variables.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._log = log
        self._environment = environment or {}
        self._port = _free_port()
        self.url = f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        command = [part.replace(PORT, str(self._port)) for part in self._command]
        self.started = time.perf_counter()
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self._environment},
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
            while (elapsed := time.perf_counter() - self.started) < READY_SECONDS:
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
