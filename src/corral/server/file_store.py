"""Files of OpenAI's API: contents on disk, rows in the database. Everything here blocks: it runs on threads."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from corral.config import data_home
from corral.errors import StorageError
from corral.limits import MAX_STORED_FILE_BYTES
from corral.server.database import Database, Subject
from corral.store.lock import if_free

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, Table

ORPHAN_S = 3600.0  # after which a content or a folder without a row is nobody's


def _subject() -> Subject:
    from corral.server.batch_tables import subject

    return subject()


class FileStore:
    """Contents are files named by their random ids; a row makes one visible, to its owner alone."""

    def __init__(self, database: Database) -> None:
        database.register("batches", _subject)
        self.database = database

    @property
    def folder(self) -> Path:
        return data_home() / "files"

    @property
    def work_folder(self) -> Path:
        """Of the batches that are not finished, a folder each."""
        return data_home() / "batches"

    def path(self, file_id: str) -> Path:
        return self.folder / file_id

    def lock_if_free(self) -> AbstractContextManager[bool]:
        """Held by the one server of this data folder that runs batches."""
        self.work_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return if_free(self.work_folder / "lock")

    def add(
        self, owner: str, source: BinaryIO, filename: str, purpose: str, seconds: int | None
    ) -> dict[str, Any] | None:
        """The new file; None where the owner has no room for it.

        Raises:
            StorageError: the disk is full, or cannot be written.
        """
        file_id = f"file-{secrets.token_hex(12)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(self.path(file_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            made = self.add_row(owner, file_id, filename, purpose, seconds, is_bounded=True)
        except OSError as error:
            self.path(file_id).unlink(missing_ok=True)
            raise storage_error(self.folder, error) from error
        except BaseException:
            self.path(file_id).unlink(missing_ok=True)
            raise
        if made is None:
            self.path(file_id).unlink(missing_ok=True)
        return made

    def add_row(
        self,
        owner: str,
        file_id: str,
        filename: str,
        purpose: str,
        seconds: int | None,
        *,
        is_bounded: bool = False,
    ) -> dict[str, Any] | None:
        """Makes a content visible that lies in its place; None where it would be more than its owner may have."""
        from sqlalchemy import func, select

        from corral.server.batch_tables import FILES

        now = int(time.time())
        values = {"id": file_id, "owner": owner, "purpose": purpose, "filename": filename, "created_at": now}
        size = self.path(file_id).stat().st_size
        values |= {"bytes": size, "expires_at": now + seconds if seconds else None}

        def insert(connection: Connection) -> bool:
            is_live = FILES.c.expires_at.is_(None) | (FILES.c.expires_at > now)
            query = select(func.coalesce(func.sum(FILES.c.bytes), 0)).where(FILES.c.owner == owner, is_live)
            if is_bounded and int(connection.execute(query).scalar_one()) + size > MAX_STORED_FILE_BYTES:
                return False
            if connection.execute(select(FILES.c.id).where(FILES.c.id == file_id)).first() is None:
                connection.execute(FILES.insert().values(values))
            return True

        return _file_object(values) if self.database.run_now(insert) else None

    def get(self, owner: str, file_id: str) -> dict[str, Any] | None:
        from sqlalchemy import select

        from corral.server.batch_tables import FILES

        query = select(FILES).where(FILES.c.owner == owner, FILES.c.id == file_id)
        row = self.database.run_now(lambda c: c.execute(query).mappings().first())
        if row is None or (row["expires_at"] is not None and row["expires_at"] <= time.time()):
            return None
        return _file_object(dict(row))

    def page(
        self, owner: str, *, after: str | None, limit: int, is_newest_first: bool, purpose: str | None
    ) -> tuple[list[dict[str, Any]], bool] | None:
        """Files, and whether there are more; None where `after` is none of the owner's."""
        from sqlalchemy import select

        from corral.server.batch_tables import FILES

        query = select(FILES).where(FILES.c.expires_at.is_(None) | (FILES.c.expires_at > time.time()))
        if purpose is not None:
            query = query.where(FILES.c.purpose == purpose)
        rows = page_of(self.database, FILES, query, owner, after, limit, is_newest_first=is_newest_first)
        return None if rows is None else ([_file_object(row) for row in rows[:limit]], len(rows) > limit)

    def delete(self, owner: str, file_id: str) -> bool:
        from corral.server.batch_tables import FILES

        query = FILES.delete().where(FILES.c.owner == owner, FILES.c.id == file_id)
        if not self.database.run_now(lambda c: c.execute(query).rowcount):
            return False
        self.path(file_id).unlink(missing_ok=True)
        return True

    def sweep(self) -> None:
        """Removes expired files, and contents that a crash left without a row. Folders of batches likewise."""
        from corral.server.batch_tables import BATCHES, FILES

        expired = FILES.delete().where(FILES.c.expires_at <= time.time())
        self.database.run_now(lambda c: c.execute(expired).rowcount)
        for folder, table in ((self.folder, FILES), (self.work_folder, BATCHES)):
            known = self._ids(table)
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in known and path.name != "lock" and time.time() - path.stat().st_mtime > ORPHAN_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _ids(self, table: Table) -> set[str]:
        from sqlalchemy import select

        return set(self.database.run_now(lambda c: c.execute(select(table.c.id)).scalars().all()))


def storage_error(folder: Path, error: OSError) -> StorageError:
    """What a client is told of a folder of ours that cannot be written."""
    reason = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "failed"
    return StorageError(f"{folder}: {error.strerror}", reason)


def page_of(
    database: Database,
    table: Table,
    query: Select[Any],
    owner: str,
    after: str | None,
    limit: int,
    *,
    is_newest_first: bool,
) -> list[dict[str, Any]] | None:
    """One row more than a page has, if there are so many; None where `after` is none of the owner's."""
    from sqlalchemy import select

    def read(connection: Connection) -> list[dict[str, Any]] | None:
        asked = query.where(table.c.owner == owner)
        if after is not None:
            found = select(table.c.number).where(table.c.owner == owner, table.c.id == after)
            number = connection.execute(found).scalar()
            if number is None:
                return None
            asked = asked.where(table.c.number < number if is_newest_first else table.c.number > number)
        order = table.c.number.desc() if is_newest_first else table.c.number
        return [dict(row) for row in connection.execute(asked.order_by(order).limit(limit + 1)).mappings()]

    return database.run_now(read)


def _file_object(row: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "bytes", "created_at", "expires_at", "filename", "purpose")
    return {**{name: row[name] for name in names}, "object": "file", "status": "processed", "status_details": None}
