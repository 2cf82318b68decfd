"""Files and batches as they lie in the database and on disk. Everything here blocks: it runs on threads."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from corral.config import data_home
from corral.errors import StorageError
from corral.server.database import Database, Subject

MAX_FILE_BYTES = 512 << 20
MAX_TOTAL_BYTES = 16 << 30  # of one key's files


def _subject() -> Subject:
    from corral.server.batch_tables import subject

    return subject()


class FileStore:
    """Contents are files named by their random ids; a row makes one visible, to its owner alone."""

    def __init__(self, database: Database) -> None:
        database.register("batches", _subject)
        self._database = database

    @property
    def folder(self) -> Path:
        return data_home() / "files"

    @property
    def work_folder(self) -> Path:
        """Of the batches that are not finished, a folder each."""
        return data_home() / "batches"

    def path(self, file_id: str) -> Path:
        return self.folder / file_id

    def add(
        self, owner: str, source: BinaryIO, filename: str, purpose: str, seconds: int | None
    ) -> dict[str, Any] | None:
        """The new file; None where the owner has no room for it."""
        from sqlalchemy import func, select

        from corral.server.batch_tables import FILES

        file_id = f"file-{secrets.token_hex(12)}"
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        query = select(func.coalesce(func.sum(FILES.c.bytes), 0)).where(FILES.c.owner == owner)
        if int(self._database.run_now(lambda c: c.execute(query).scalar_one())) + size > MAX_TOTAL_BYTES:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(self.path(file_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            return self.add_row(owner, file_id, filename, purpose, seconds)
        except OSError as error:
            self.path(file_id).unlink(missing_ok=True)
            reason = "full" if error.errno == 28 else "failed"
            raise StorageError(f"{self.folder}: {error.strerror}", reason) from error

    def add_row(self, owner: str, file_id: str, filename: str, purpose: str, seconds: int | None) -> dict[str, Any]:
        """Makes a content visible that lies in its place."""
        from corral.server.batch_tables import FILES

        now = int(time.time())
        values = {"id": file_id, "owner": owner, "purpose": purpose, "filename": filename, "created_at": now}
        values |= {"bytes": self.path(file_id).stat().st_size, "expires_at": now + seconds if seconds else None}
        self._database.run_now(lambda c: c.execute(FILES.insert().prefix_with("OR IGNORE").values(values)))
        return _file_object(values)

    def get(self, owner: str, file_id: str) -> dict[str, Any] | None:
        return next((file for file in self.files(owner) if file["id"] == file_id), None)

    def files(self, owner: str) -> list[dict[str, Any]]:
        """Oldest first, without those that have expired."""
        from sqlalchemy import select

        from corral.server.batch_tables import FILES

        query = select(FILES).where(FILES.c.owner == owner).order_by(FILES.c.number)
        rows = self._database.run_now(lambda c: [dict(row) for row in c.execute(query).mappings()])
        now = time.time()
        return [_file_object(row) for row in rows if row["expires_at"] is None or row["expires_at"] > now]

    def delete(self, owner: str, file_id: str) -> bool:
        from corral.server.batch_tables import FILES

        query = FILES.delete().where(FILES.c.owner == owner, FILES.c.id == file_id)
        if not self._database.run_now(lambda c: c.execute(query).rowcount):
            return False
        self.path(file_id).unlink(missing_ok=True)
        return True

    def save_batch(
        self, owner: str, batch: dict[str, Any], seconds: int | None = None, *, is_new: bool = False
    ) -> None:
        from corral.server.batch_tables import BATCHES

        values: dict[str, Any] = {"status": batch["status"], "object": msgspec.json.encode(batch).decode()}
        statement: Any = BATCHES.update().where(BATCHES.c.id == batch["id"]).values(values)
        if is_new:
            statement = BATCHES.insert().values(id=batch["id"], owner=owner, output_seconds=seconds, **values)
        self._database.run_now(lambda c: c.execute(statement))

    def batches(self, owner: str) -> list[dict[str, Any]]:
        """Oldest first."""
        from sqlalchemy import select

        from corral.server.batch_tables import BATCHES

        query = select(BATCHES.c.object).where(BATCHES.c.owner == owner).order_by(BATCHES.c.number)
        return self._database.run_now(lambda c: [msgspec.json.decode(text) for text in c.execute(query).scalars()])

    def unfinished(self) -> list[tuple[str, dict[str, Any], int | None]]:
        """Owner, batch, and seconds that its output lives."""
        from sqlalchemy import select

        from corral.server.batch_tables import BATCHES

        running = ("validating", "in_progress", "finalizing", "cancelling")
        columns = (BATCHES.c.owner, BATCHES.c.object, BATCHES.c.output_seconds)
        query = select(*columns).where(BATCHES.c.status.in_(running)).order_by(BATCHES.c.number)
        rows = self._database.run_now(lambda c: c.execute(query).all())
        return [(row[0], msgspec.json.decode(row[1]), row[2]) for row in rows]


def _file_object(row: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "bytes", "created_at", "expires_at", "filename", "purpose")
    return {**{name: row[name] for name in names}, "object": "file", "status": "processed", "status_details": None}
