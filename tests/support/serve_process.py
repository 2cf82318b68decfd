"""`corral serve` as users start it: a process of its own whose log is kept, over a store in a folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ServeProcess:
    """Use `serving`."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        command = [sys.executable, "-m", "corral", "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(folder))
        self.log: list[str] = []
        self._url = ""
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"Corral serves .* at (http://[^\s,]+)", line):
                self._url = found[1]
                self._is_ready.set()
        self._is_ready.set()

    def url(self) -> str:
        assert self._is_ready.wait(120)
        assert self._url, "".join(self.log)
        return self._url

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """The exit code, when it ends by itself; the log is whole then."""
        code = self.process.wait(120)
        self._reader.join(30)
        return code

    def close(self) -> None:
        self.process.kill()
        self.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def count(self, word: str) -> int:
        """Lines that begin with it, after their time."""
        return sum(re.match(rf"(\S+ \S+ )?{re.escape(word)}", line) is not None for line in self.log)


@contextmanager
def serving(*arguments: str, folder: Path) -> Iterator[ServeProcess]:
    """A server with `arguments` whose models are those of the store in `folder`."""
    server = ServeProcess(*arguments, folder=folder)
    try:
        yield server
    finally:
        server.close()


def create_model(name: str, modelfile: str, folder: Path) -> None:
    """`corral create`, into the store in `folder`."""
    command = [sys.executable, "-m", "corral", "create", name, "-f", "-"]
    subprocess.run(command, input=modelfile, env=environment(folder), text=True, check=True, timeout=120)


def environment(folder: Path) -> dict[str, str]:
    """Corral's home is `folder`; no Ollama's store is seen."""
    return {**os.environ, "CORRAL_HOME": str(folder), "OLLAMA_MODELS": str(folder / "none")}
