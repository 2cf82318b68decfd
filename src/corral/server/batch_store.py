"""Batches as the database and their folders have them. Everything here blocks: it runs on threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from corral.server import batch_files
from corral.server.file_store import FileStore, page_of, storage_error

if TYPE_CHECKING:
    from sqlalchemy import Connection

ENDED = frozenset(("completed", "failed", "expired", "cancelled"))
_OUTPUTS = {"output_file_id": batch_files.OUTPUT, "error_file_id": batch_files.ERRORS}

Change = Callable[[dict[str, Any]], bool]  # of the batch, in place; whether there was any


class BatchStore:
    """Each change reads and writes a batch's row in one transaction: a cancel and an end overwrite neither."""

    def __init__(self, files: FileStore) -> None:
        self.files = files
        self.work_folder = files.work_folder
        self.lock_if_free = files.lock_if_free
        self.sweep = files.sweep
        self._database = files.database

    def has_work(self) -> bool:
        """Whether an earlier server may have left a batch; needs no database."""
        folder = self.work_folder
        return folder.is_dir() and any(path.is_dir() for path in folder.iterdir())

    def create(self, owner: str, batch: dict[str, Any], seconds: int | None) -> None:
        """A new batch of a file that is there; the file may be deleted while it runs.

        Raises:
            StorageError: the disk is full, or cannot be written.
        """
        from corral.server.batch_tables import BATCHES

        folder = self.work_folder / batch["id"]
        try:
            folder.mkdir(parents=True, mode=0o700)
            batch_files.link_or_copy(self.files.path(batch["input_file_id"]), folder / batch_files.INPUT)
        except OSError as error:
            batch_files.remove(folder)
            raise storage_error(folder, error) from error
        values = {"id": batch["id"], "owner": owner, "output_seconds": seconds, **_values(batch)}
        self._database.run_now(lambda c: c.execute(BATCHES.insert().values(values)))

    def get(self, owner: str, batch_id: str) -> dict[str, Any] | None:
        from sqlalchemy import select

        from corral.server.batch_tables import BATCHES

        query = select(BATCHES.c.object).where(BATCHES.c.owner == owner, BATCHES.c.id == batch_id)
        text = self._database.run_now(lambda c: c.execute(query).scalar())
        return None if text is None else _decoded(text)

    def page(
        self, owner: str, *, after: str | None, limit: int, is_newest_first: bool
    ) -> tuple[list[dict[str, Any]], bool] | None:
        """Batches, and whether there are more; None where `after` is none of the owner's."""
        from sqlalchemy import select

        from corral.server.batch_tables import BATCHES

        query = select(BATCHES)
        rows = page_of(self._database, BATCHES, query, owner, after, limit, is_newest_first=is_newest_first)
        return None if rows is None else ([_decoded(row["object"]) for row in rows[:limit]], len(rows) > limit)

    def unfinished(self) -> list[tuple[str, dict[str, Any], int | None]]:
        """Owner, batch, and seconds that its output lives; oldest first.

        Of a database that servers share, those whose lines lie in this one's folder.
        """
        from sqlalchemy import select

        from corral.server.batch_tables import BATCHES

        columns = (BATCHES.c.owner, BATCHES.c.object, BATCHES.c.output_seconds)
        query = select(*columns).where(BATCHES.c.status.not_in(ENDED)).order_by(BATCHES.c.number)
        rows = self._database.run_now(lambda c: c.execute(query).all())
        found = [(row[0], _decoded(row[1]), row[2]) for row in rows]
        if not self._database.is_shared:
            return found
        return [entry for entry in found if (self.work_folder / entry[1]["id"]).is_dir()]

    def move_on(self, batch_id: str, status: str, counts: dict[str, int], fields: dict[str, Any]) -> str:
        """Brings a batch into `status`, unless it has ended, or is being cancelled; the status it has then."""

        def change(batch: dict[str, Any]) -> bool:
            if batch["status"] in ENDED:
                return False
            wanted = status
            if batch["status"] == "cancelling" and status != "failed":
                wanted = "cancelled" if status in ENDED else "cancelling"
            batch.update(fields)
            batch["request_counts"].update(counts)
            batch["status"] = wanted
            batch[f"{wanted}_at"] = batch[f"{wanted}_at"] or int(time.time())
            return True

        return str(self._change(batch_id, change)["status"])

    def cancel(self, owner: str, batch_id: str) -> dict[str, Any] | None:
        """The batch, which is being cancelled if its status says so; None if there is none."""
        if self.get(owner, batch_id) is None:
            return None

        def change(batch: dict[str, Any]) -> bool:
            if batch["status"] not in ("validating", "in_progress"):
                return False
            batch |= {"status": "cancelling", "cancelling_at": int(time.time())}
            return True

        return self._change(batch_id, change)

    def save_counts(self, batch_id: str, counts: dict[str, int]) -> None:
        """For whoever looks at a batch under way; a restart counts anew."""

        def change(batch: dict[str, Any]) -> bool:
            batch["request_counts"].update(counts)
            return batch["status"] not in ENDED

        self._change(batch_id, change)

    def publish_outputs(self, owner: str, batch_id: str, seconds: int | None) -> dict[str, str]:
        """Makes files of what a batch has answered; their ids by the batch's fields. Done twice, it is as done once."""
        found = {}
        self.files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for field, name in _OUTPUTS.items():
            source = self.work_folder / batch_id / name
            if source.exists() and source.stat().st_size:
                file_id = f"file-{batch_id.removeprefix('batch_')}{name[0]}"  # after a crash the same
                batch_files.link_or_copy(source, self.files.path(file_id))
                self.files.add_row(owner, file_id, f"{batch_id}_{name}", "batch_output", seconds)
                found[field] = file_id
        return found

    def _change(self, batch_id: str, change: Change) -> dict[str, Any]:
        from sqlalchemy import select

        from corral.server.batch_tables import BATCHES

        def read_and_write(connection: Connection) -> dict[str, Any]:
            query = select(BATCHES.c.object).where(BATCHES.c.id == batch_id).with_for_update()
            text = connection.execute(query).scalar_one()
            batch = _decoded(text)
            if change(batch):
                connection.execute(BATCHES.update().where(BATCHES.c.id == batch_id).values(_values(batch)))
            return batch

        return self._database.run_now(read_and_write)


def _values(batch: dict[str, Any]) -> dict[str, str]:
    return {"status": batch["status"], "object": msgspec.json.encode(batch).decode()}


def _decoded(text: str) -> dict[str, Any]:
    batch: dict[str, Any] = msgspec.json.decode(text)
    return batch
