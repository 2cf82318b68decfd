"""A program at a pseudo-terminal: what it shows, and keys pressed at it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

CTRL_C = "\x03"
CTRL_D = "\x04"
ENTER = "\r"
# A session leader that opens a terminal gets it as its own, so that Ctrl-C becomes a signal. Tests that run in the
# background of a shell inherit that it is ignored.
_LAUNCH = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
terminal = os.open(sys.argv[1], os.O_RDWR)
for stream in range(3):
    os.dup2(terminal, stream)
os.close(terminal)
os.close(int(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""
_ASK_CURSOR = "\x1b[6n"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b\][^\x07]*\x07|\x1b[=>78]")
_TIMEOUT_S = 120.0


class TerminalSession:
    """`expect` waits for text after what was expected before; `screen` is all that was shown, without escapes."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, os.ttyname(slave), str(slave), *command],
            pass_fds=[slave],  # with nobody at its other end the terminal would read as closed
            env=environment | {"TERM": "xterm"},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        os.close(slave)
        self.raw = ""
        self._seen = 0

    @property
    def screen(self) -> str:
        return _ESCAPE.sub("", self.raw)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while (found := self.screen.find(text, self._seen)) < 0:
            assert self._read(deadline), f"{text!r} did not come; the screen shows:\n{self.screen}"
        self._seen = found + len(text)

    def wait(self) -> int:
        """The exit code, after reading to the end."""
        deadline = time.monotonic() + _TIMEOUT_S
        while self._read(deadline):
            pass
        return self.process.wait(timeout=_TIMEOUT_S)

    def _read(self, deadline: float) -> bool:
        """Reads what is there; False once the program has closed the terminal or time is up."""
        ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the other end is gone
            return False
        self.raw += data.decode(errors="replace")
        for _ in range(data.count(_ASK_CURSOR.encode())):
            self.press("\x1b[1;1R")
        return bool(data)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminal_session(command: list[str], environment: dict[str, str]) -> Iterator[TerminalSession]:
    session = TerminalSession(command, environment)
    try:
        yield session
    finally:
        session.close()
