"""The front process's database: private, lazily opened, and clear about what ails it."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text

from corral.errors import StorageError
from corral.server import database as module
from corral.server.database import Database, Subject


def subject(version: int = 1) -> Subject:
    tables = MetaData()
    Table("things", tables, Column("id", Integer, primary_key=True))
    migrations = {2: lambda c: c.execute(text("ALTER TABLE things ADD COLUMN size INTEGER"))}
    return Subject("things", tables, version, migrations)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    return tmp_path


def do(sql: str, version: int = 1) -> list[tuple[object, ...]]:
    async def main() -> list[tuple[object, ...]]:
        database = Database()
        database.register("things", lambda: subject(version))
        try:
            return await database.run(lambda c: [tuple(r) for r in c.execute(text(sql))] if "SELECT" in sql else _do(c))
        finally:
            await database.close()

    def _do(connection: object) -> list[tuple[object, ...]]:
        connection.execute(text(sql))  # type: ignore[attr-defined]
        return []

    return asyncio.run(main())


def test_what_is_written_stays_and_is_private(home: Path) -> None:
    do("INSERT INTO things VALUES (7)")
    assert do("SELECT * FROM things") == [(7,)]
    assert stat.S_IMODE((home / "corral.db").stat().st_mode) == 0o600


def test_an_older_schema_is_migrated_and_a_newer_one_refused() -> None:
    do("INSERT INTO things VALUES (7)")
    assert do("SELECT * FROM things", version=2) == [(7, None)]
    with pytest.raises(StorageError, match="version 2; this Corral knows 1"):
        do("SELECT * FROM things", version=1)


def test_an_error_undoes_the_transaction() -> None:
    with pytest.raises(StorageError):
        do("INSERT INTO things VALUES (1), (1)")
    assert do("SELECT * FROM things") == []


def test_a_damaged_file_is_named_and_kept(home: Path) -> None:
    (home / "corral.db").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match=r"corral\.db: .*not a database") as caught:
        do("SELECT 1")
    assert caught.value.reason == "damaged"
    assert (home / "corral.db").read_bytes() == b"no database" * 100


def test_a_locked_file_is_busy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.01)
    do("SELECT 1")
    other = sqlite3.connect(home / "corral.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StorageError) as caught:
            do("SELECT 1")
    finally:
        other.close()
    assert caught.value.reason == "busy"


def test_the_import_waits_for_the_first_use() -> None:
    code = "import sys, corral.server.app, corral.server.database; assert 'sqlalchemy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
