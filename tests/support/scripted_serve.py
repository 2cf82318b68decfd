"""`corral serve` as a process of its own, command line and all; only its models are scripted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from corral.cli.main import main
from corral.server import model_manager, run
from tests.support import scripted_worker
from tests.support.scripted_models import ScriptedProbe, read_scripted_needs
class Manager(model_manager.ModelManager):
    def __init__(self, *args, **settings):
        scripted = {"command": scripted_worker.COMMAND, "read_needs": read_scripted_needs, "probe": ScriptedProbe()}
        super().__init__(*args, **settings, **scripted)
run.ModelManager = Manager
main()
"""


class ScriptedServe:
    """Use `scripted_serve`."""

    def __init__(self, folder: Path, arguments: Sequence[str], prefix: Sequence[str], **more: Any) -> None:
        model = folder / "scripted.gguf"
        model.touch()
        command = [*prefix, sys.executable, "-c", CODE, "serve", str(model), *arguments]
        environment = {**os.environ, "NO_COLOR": "1", "CORRAL_HOME": str(folder), **more.pop("env", {})}
        more = {"stderr": subprocess.PIPE, "text": True, "cwd": ROOT, **more}  # whatever the test's own folder is
        self.process: subprocess.Popen[str] = subprocess.Popen(command, env=environment, **more)
        self.url = ""

    def read_until(self, words: str) -> str:
        """The next line with these words."""
        stderr: IO[str] | None = self.process.stderr
        assert stderr is not None
        passed = []
        for line in stderr:
            passed.append(line)
            if words in line:
                return line
        raise AssertionError(f"the server ended without saying {words!r}, but {''.join(passed)}")

    def wait_ready(self) -> None:
        found = re.search(r" at (\S+) ", self.read_until("Corral serves"))
        assert found is not None
        self.url = found[1]

    def hang_up(self) -> str:
        """Lets it read everything again; what it says of that."""
        self.process.send_signal(signal.SIGHUP)
        return self.read_until("reloaded")

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def scripted_serve(
    folder: Path, *arguments: str, port: int | None = 0, prefix: Sequence[str] = (), **more: Any
) -> Iterator[ScriptedServe]:
    """A server that has been started in `folder`, which is its home; its model is called "scripted".

    Args:
        port: None where the arguments, or the file of settings, say it.
        prefix: a command that runs it.
        more: for the process.
    """
    flags = () if port is None else ("--port", str(port))
    server = ScriptedServe(folder, [*arguments, *flags], prefix, **more)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()
