"""What an engine prints: its beginning goes to a file, its end is kept for the day it fails."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import IO

MAX_FILE = 8 << 20  # bytes: a line for each token of an hour, but no full disk
MAX_END = 8 << 10
MAX_WORDS = 400  # characters of last words
_PART = 64 << 10
_WAIT_S = 2.0  # for the rest of a pipe whose writers are gone


class Log:
    """Reads a pipe in a thread, so that a flood neither stops the engine nor fills the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._written = 0
        self._left_out = 0
        self._end = b""
        self._reader: threading.Thread | None = None

    def follow(self, pipe: IO[bytes]) -> None:
        """A second one comes after the first in the same file."""
        self._end = b""
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while part := pipe.read1(_PART) if hasattr(pipe, "read1") else pipe.read(_PART):
                self._end = (self._end + part)[-MAX_END:]
                room = max(0, MAX_FILE - self._written)
                self._file.write(part[:room])
                self._file.flush()
                self._written += min(room, len(part))
                self._left_out += max(0, len(part) - room)

    def last_words(self) -> str:
        """The last lines, in one."""
        if self._reader is not None:
            self._reader.join(0.2)  # after a crash the last of it may still be in the pipe
        lines = self._end.decode("utf-8", "replace").strip().splitlines()
        text = " / ".join(line.strip() for line in lines[-4:] if line.strip())
        return text[-MAX_WORDS:] or "it said nothing"

    def finish(self) -> None:
        """After all writers have ended."""
        if self._reader is not None:
            self._reader.join(_WAIT_S)
            self._reader = None

    def close(self) -> None:
        if self._file.closed:
            return
        if self._left_out:
            self._file.write(b"\n... %d bytes left out; its end:\n" % self._left_out + self._end)
        self._file.close()


def file_name(engine: str) -> str:
    """An engine's name as a file's: an attached one may be called anything."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", engine).lstrip(".")[:80] or "_"
