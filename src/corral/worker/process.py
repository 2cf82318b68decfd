"""The operating system's side of a worker: its process, the socket only it can reach, its log."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import mmap
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corral.errors import EngineDead
from corral.logs import about_no_request, record_of_wire, shows_prompts
from corral.worker.death import Death, count_oom_kills, kind_of_end
from corral.worker.step_record import NUM_BYTES, Doing, make_memory, read_record

WORKER_COMMAND = (sys.executable, "-m", "corral.worker.main")
CLOSE_TIMEOUT_S = 10.0
DEATH_TIMEOUT_S = 2.0  # from a closed connection to the exit code
LOG_TAIL_LENGTH = 4096  # characters

logger = logging.getLogger("corral.worker")


class LogTail:
    """Passes the worker's stderr on, line by line, and keeps its end."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._words = ""
        self._task = asyncio.get_running_loop().create_task(self._run(), context=about_no_request())

    async def _run(self) -> None:
        rest = b""
        while chunk := await self._stream.read(1 << 16):
            *lines, rest = (rest + chunk)[-(1 << 16) :].split(b"\n")
            self._pass_on(lines)
        if rest:
            self._pass_on([rest])

    def _pass_on(self, lines: list[bytes]) -> None:
        """What the worker has logged keeps its level; what libraries and the system write for it is a warning."""
        for record, group in itertools.groupby(lines, record_of_wire):
            if record is None:
                words = b"\n".join(group).decode(errors="replace")
                logger.warning("%s", words)
            else:
                words = f"{record.levelname.lower()}: {record.getMessage()}"
                if (owner := logging.getLogger(record.name)).isEnabledFor(record.levelno):
                    owner.handle(record)
            self._words = f"{self._words}\n{words}"[-LOG_TAIL_LENGTH:]

    def tail(self) -> str:
        return self._words.strip()

    async def finish(self) -> None:
        """Waits for the end of the log; a grandchild may hold it open, so not for long."""
        await asyncio.wait({self._task}, timeout=DEATH_TIMEOUT_S)
        self._task.cancel()


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A running process that has connected back to us."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log: LogTail
    record: mmap.mmap
    num_oom_kills: int  # in the system, when it was started

    @classmethod
    async def spawn(cls, command: Sequence[str]) -> WorkerProcess:
        """Starts `command` and waits for its connection.

        Raises:
            EngineDead: it ended before it connected.
        """
        num_oom_kills = count_oom_kills()
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="corral-"))  # made with mode 0700
            record_fd = make_memory()
            stack.callback(os.close, record_fd)
            record = mmap.mmap(record_fd, NUM_BYTES, prot=mmap.PROT_READ)
            path = Path(folder) / "worker.sock"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.setblocking(False)
                listener.bind(str(path))
                path.chmod(0o600)
                listener.listen(1)
                told = ["--socket", str(path), "--record-fd", str(record_fd), *_log_flags()]
                process, log = await _start([*command, *told], record_fd)
                try:
                    connection = await _accept(listener, process, log)
                    reader, writer = await asyncio.open_unix_connection(sock=connection)
                except BaseException:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
                    await log.finish()
                    raise
        return cls(process, reader, writer, log, record, num_oom_kills)

    def doing(self) -> Doing:
        """What it computes at this moment, or did when it ended."""
        return read_record(self.record)

    async def stop(self) -> None:
        """Closes the connection, which ends the process; by force if it does not end within seconds."""
        self.writer.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.process.wait()
        except TimeoutError:
            await self.kill()
        except BaseException:
            await self.kill()
            raise
        await self.log.finish()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def autopsy(self, *, was_hung: bool) -> Death:
        """How it ended; kills a process that has only closed its connection.

        Args:
            was_hung: we have killed it because it made no progress.
        """
        try:
            async with asyncio.timeout(DEATH_TIMEOUT_S):
                await self.process.wait()
        except TimeoutError:
            await self.kill()
        await self.log.finish()
        code = self.process.returncode
        num_oom_kills = count_oom_kills() - self.num_oom_kills
        kind = kind_of_end(code, was_hung=was_hung, num_oom_kills=num_oom_kills)
        return Death(kind, _describe_end(code, self.log), self.doing())


def _log_flags() -> list[str]:
    """The worker says as much as is said here."""
    level = ["--log-level", logging.getLevelName(logger.getEffectiveLevel())]
    return [*level, "--log-requests"] if shows_prompts() else level


async def _start(command: Sequence[str], record_fd: int) -> tuple[asyncio.subprocess.Process, LogTail]:
    # A session of its own: Ctrl-C in the terminal is the front's to handle.
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        pass_fds=(record_fd,),
    )
    if process.stderr is None:
        raise EngineDead("the worker was started without a log")
    return process, LogTail(process.stderr)


async def _accept(listener: socket.socket, process: asyncio.subprocess.Process, log: LogTail) -> socket.socket:
    accepting = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(listener))
    dying = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({accepting, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not accepting.done():
            await log.finish()
            raise EngineDead(f"the worker ended before it connected: {_describe_end(process.returncode, log)}")
        connection = accepting.result()[0]
    finally:
        accepting.cancel()
        dying.cancel()
    peer_pid = _peer_pid(connection)
    if peer_pid is not None and peer_pid != process.pid:
        connection.close()
        raise EngineDead(f"process {peer_pid} connected in the worker's place, which is {process.pid}")
    connection.setblocking(False)
    return connection


def _peer_pid(connection: socket.socket) -> int | None:
    """The process at the other end, where the system tells it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _describe_end(code: int | None, log: LogTail) -> str:
    how = "still running" if code is None else f"exit code {code}" if code >= 0 else f"killed by {_signal_name(-code)}"
    words = log.tail()
    return f"{how}; its last words:\n{words}" if words else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
