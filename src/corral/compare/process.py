"""An engine as a process: started, awaited, measured, stopped. Only what was started here is ever ended."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from corral.compare.engines.engine import HOST, Engine, EngineFailed, Launch
from corral.compare.log import Log
from corral.config import environment_without

# A setting of the user's would reach one engine and not the others.
ENGINE_SETTINGS = ("CORRAL_", "LLAMA_ARG_", "OLLAMA_", "VLLM_")
POLL_S = 0.02
PROBE_S = 5.0  # for one question whether it is ready
STOP_S = 30.0  # from SIGTERM until SIGKILL

Progress = Callable[[float], None]  # seconds since the start


class Server:
    """async with Server(launch, port, log) as server: await server.wait_ready(engine, client)

    It has a session of its own. However the block is left, every process of that session is ended, and every child
    that has left the session.

    Args:
        log: file for what it prints.
    """

    def __init__(self, launch: Launch, port: int, log: Path) -> None:
        self.launch = launch
        self.argv = launch.argv
        self.url = f"http://{HOST}:{port}"
        self._port = port
        self.notes: list[str] = list(launch.notes)
        self.began = time.perf_counter()  # when the process was started
        self.stop_s: float | None = None
        self._log = Log(log)
        self._process: subprocess.Popen[bytes] | None = None
        self._code: int | None = None
        self._lock = threading.Lock()
        self._strays: dict[int, str] = {}  # children that were seen outside the session, with when they began

    async def __aenter__(self) -> Self:
        try:
            self.start()
        except EngineFailed:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Raises EngineFailed where the port is taken or the program cannot be run; what runs already is left alone."""
        if not self.argv:
            return
        if not _is_free(self._port):  # else somebody else's answers would pass for the engine's
            raise EngineFailed(f"port {self._port} is taken by another program")
        self.began = time.perf_counter()
        self._code = None
        try:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=child_environment(self.launch.environment),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineFailed(f"{Path(self.argv[0]).name} cannot be started: {error.strerror}") from error
        if self._process.stdout is not None:
            self._log.follow(self._process.stdout)
        atexit.register(self.close)  # where a second Ctrl-C has cut the unwinding of the first one short

    @property
    def pid(self) -> int | None:
        """Of the process that was started; None for what runs already."""
        return process.pid if (process := self._process) else None

    def code(self) -> int | None:
        """How it ended, below 0 by a signal; None while it runs. It is not reaped, so its number stays taken."""
        if self._process is None or self._code is not None:
            return self._code
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            self._code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        return self._code

    async def wait_ready(self, engine: Engine, client: httpx.AsyncClient, progress: Progress | None = None) -> float:
        """Seconds from the start of the process until `engine` says that it is ready.

        Raises:
            EngineFailed: it ended, or was not ready in `launch.ready_s`; with its last words.
        """
        while (elapsed := time.perf_counter() - self.began) < self.launch.ready_s:
            if (code := self.code()) is not None:
                if code < 0 and self.launch.spare_argv and self.argv != self.launch.spare_argv:
                    self._start_other_way(code)
                    continue
                raise EngineFailed(f"{engine.name} {how_it_ended(code)} before it was ready: {self.last_words()}")
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(PROBE_S):
                    if await engine.is_ready(client) and self.code() is None:
                        return time.perf_counter() - self.began
            if progress is not None:
                progress(elapsed)
            await asyncio.sleep(POLL_S)
        raise EngineFailed(f"{engine.name} was not ready after {self.launch.ready_s:.0f} s: {self.last_words()}")

    def _start_other_way(self, code: int) -> None:
        more = [part for part in self.launch.spare_argv if part not in self.argv]
        less = [part for part in self.argv if part not in self.launch.spare_argv]
        change = " ".join([*(f"with {part}" for part in more), *(f"without {part}" for part in less)])
        self.notes.append(f"it {how_it_ended(code)} at its start, so it was started {change}")
        self._end_tree()
        self.argv = self.launch.spare_argv
        self.start()

    def tree(self) -> list[int]:
        """Process numbers of the engine, its children and what they started; empty for what runs already."""
        process = self._process  # a sampler's thread asks too, also while it is closed
        if process is None:
            return []
        processes = _processes()
        inside = {pid for pid, stat in processes.items() if stat.session == process.pid}
        with self._lock:
            strays = {pid: began for pid, began in self._strays.items() if pid in processes}
            strays = {pid: began for pid, began in strays.items() if processes[pid].began == began}
            while more := {
                pid: stat.began
                for pid, stat in processes.items()
                if pid not in inside and pid not in strays and (stat.parent in inside or stat.parent in strays)
            }:
                strays |= more
            self._strays = strays
        return sorted(inside | strays.keys())

    def last_words(self) -> str:
        """The end of what it printed, in a line."""
        return self._log.last_words()

    def kill(self) -> None:
        """SIGKILL to the process that was started and to no other: the crash of a probe."""
        if self._process is not None and self.code() is None:
            os.kill(self._process.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM to the process that was started, as a service manager does it."""
        if self._process is not None and self.code() is None:
            os.kill(self._process.pid, signal.SIGTERM)

    async def wait_end(self, timeout_s: float = STOP_S) -> int | None:
        """How it ended; None if it still runs after `timeout_s`."""
        deadline = time.perf_counter() + timeout_s
        while (code := self.code()) is None and time.perf_counter() < deadline:  # noqa: ASYNC110 - a process' end
            await asyncio.sleep(POLL_S)
        return code

    async def stop(self) -> float | None:
        """SIGTERM, and seconds from there until all of it is gone; None if it had to be killed, or was not ours."""
        if self._process is None:
            return None
        began = time.perf_counter()
        self.tree()  # remembers children that would be orphans afterwards
        self.terminate()
        if await self.wait_end(STOP_S) is not None:
            while self._alive() and time.perf_counter() - began < STOP_S:  # noqa: ASYNC110 - processes' ends
                await asyncio.sleep(POLL_S)
            if not self._alive():
                self.stop_s = time.perf_counter() - began
        self.close()
        return self.stop_s

    def close(self) -> None:
        """Ends all of it at once."""
        self._end_tree()
        self._log.close()
        atexit.unregister(self.close)

    def _alive(self) -> list[int]:
        return [pid for pid in self.tree() if pid != self.pid and _is_alive(pid)]

    def _end_tree(self) -> None:
        """The first process is reaped last: while its number is taken, no other session can have it."""
        if (process := self._process) is None:
            return
        for _ in range(100):  # a child may start another one while we kill
            remaining = self._alive() + ([process.pid] if self.code() is None else [])
            if not remaining:
                break
            for pid in remaining:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)
        self.code()
        process.wait()
        self._log.finish()
        self._process = None


def unwind_on_sigterm() -> None:
    """SIGTERM unwinds this process as Ctrl-C does, so that no engine outlives it. Call it in the main thread."""

    def unwind(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of what a shell's script starts behind it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, unwind)


def free_port() -> int:
    """One on which nobody listens; somebody may take it before the engine does, which then says so and ends."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, after a restart
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The user's variables less all settings of engines, and `more`."""
    return {**environment_without(ENGINE_SETTINGS), **more}


def how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


@dataclass(frozen=True, slots=True)
class _Stat:
    """Of /proc/PID/stat; `began` tells two processes of one number apart."""

    state: str
    parent: int
    session: int
    began: str


def _processes() -> dict[int, _Stat]:
    found = ((int(name), _stat(int(name))) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    return {pid: stat for pid, stat in found if stat is not None}


def _stat(pid: int) -> _Stat | None:
    """None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # its name, in brackets, may have blanks and brackets
    return _Stat(fields[0], int(fields[1]), int(fields[3]), fields[19])


def _is_alive(pid: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat.state not in ("Z", "X")
