"""The log of what was managed, by whom and from where. Entries are added and read; nothing changes or removes one.

It never holds a prompt, an answer or a secret.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.server.database import Database, Subject

if TYPE_CHECKING:
    from sqlalchemy import Connection

DONE = "done"
_LENGTHS = {"actor_id": 64, "actor": 128, "action": 32, "target": 400, "address": 64, "outcome": 64}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it.

    Args:
        key_id: of the key; "" without one.
        name: the key's, or that of the user of this machine.
        address: where the client is; "local" for the command line.
    """

    name: str
    key_id: str = ""
    address: str = "local"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    Args:
        action: "key.create", "model.pull" and the like.
        target: the key's id and name, or the model's name.
        outcome: "done", or the code or HTTP status of what refused or ended it.
        at: Unix seconds.
    """

    actor: Actor
    action: str
    target: str
    outcome: str = DONE
    at: float = field(default_factory=time.time)


def load_subject() -> Subject:
    from corral.server.keys.tables import audit_subject

    return audit_subject()


def record(connection: Connection, entry: Entry) -> None:
    """Adds an entry in the transaction of what it tells."""
    from corral.server.keys.tables import AUDIT

    values = {
        "actor_id": entry.actor.key_id,
        "actor": entry.actor.name,
        "action": entry.action,
        "target": entry.target,
        "address": entry.actor.address,
        "outcome": entry.outcome,
    }
    clean = {
        name: value.replace("\0", "?")[: _LENGTHS[name]] for name, value in values.items()
    }  # PostgreSQL has no NUL
    connection.execute(AUDIT.insert().values(at=entry.at, **clean))


class AuditLog:
    """Everything here blocks: it runs on threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.register("audit", load_subject)

    def add(self, entry: Entry) -> None:
        """Raises StorageError."""
        self._database.run_now(lambda connection: record(connection, entry))

    def page(self, *, limit: int, before: int | None = None) -> Sequence[dict[str, Any]]:
        """The newest entries, or those older than the one of the number `before`. Raises StorageError."""
        from sqlalchemy import select

        from corral.server.keys.tables import AUDIT

        query = select(AUDIT).order_by(AUDIT.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(AUDIT.c.number < before)
        return self._database.run_now(lambda c: [dict(row) for row in c.execute(query).mappings()])
