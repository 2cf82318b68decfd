"""The command as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.native_server import NativeServer, native_server

# No server listens there: a model runs in the process, and the store is this machine's.
NOWHERE = {"CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": "1"}
ROOT = Path(__file__).parent.parent.parent


def environment(**changes: str) -> dict[str, str]:
    """This process's environment: a path with the tests' helpers, a terminal of known width, no server."""
    path = os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])
    return dict(os.environ) | {"PYTHONPATH": path, "COLUMNS": "100"} | NOWHERE | changes


@pytest.fixture
def corral() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs `corral ARGUMENTS`, with nothing on standard input unless `input` says so."""

    def run(
        *arguments: str,
        env: dict[str, str] | None = None,
        input: bytes = b"",  # noqa: A002 - as subprocess calls it
    ) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "corral", *arguments]
        return subprocess.run(command, env=environment(**(env or {})), input=input, capture_output=True, check=False)

    return run


@pytest.fixture
def server() -> Iterator[NativeServer]:
    with native_server() as running:
        yield running
