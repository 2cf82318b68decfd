"""A PostgreSQL server of a test run's own, in a temporary folder and on a Unix socket there."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


def _folder_of_programs() -> Path | None:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


def _run(command: Sequence[str | Path], folder: Path) -> None:
    """As the user postgres where we are root, whom PostgreSQL refuses."""
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with (folder / "log").open("ab") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=True, timeout=120, **who)  # type: ignore[call-overload]


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of an empty database; skips the test where PostgreSQL or its driver is missing."""
    pytest.importorskip("psycopg")
    programs = _folder_of_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    # A socket's path may have 107 bytes, so pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="corral-pg-") as name:
        folder = Path(name)
        if os.getuid() == 0:
            entry = pwd.getpwnam("postgres")
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        data = folder / "data"
        _run([programs / "initdb", "-D", data, "-U", "corral", "-A", "trust", "-N", "-E", "UTF8"], folder)
        settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        _run([programs / "pg_ctl", "-D", data, "-w", "-o", settings, "start"], folder)
        try:
            yield f"postgresql://corral:secret-word@/postgres?host={folder}"
        finally:
            _run([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], folder)
