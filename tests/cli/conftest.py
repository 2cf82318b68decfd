"""The command as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, with a path on which the tests' helpers are found and a terminal of known width."""
    path = os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])
    return dict(os.environ) | {"PYTHONPATH": path, "COLUMNS": "100"} | changes


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
