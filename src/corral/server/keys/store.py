"""Keys in the database. Everything here blocks: it runs on threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from corral.errors import InvalidRequest, StorageError
from corral.server.caller import Quotas, Role
from corral.server.database import Database, Subject
from corral.server.keys import audit
from corral.server.keys.audit import Actor, Entry
from corral.server.keys.key import QUOTA_NAMES, NewKey, StoredKey, hex_digest, new_id, new_secret

if TYPE_CHECKING:
    from sqlalchemy import Connection


def load_subject() -> Subject:
    from corral.server.keys.tables import keys_subject

    return keys_subject()


class KeyStore:
    """Every change is one transaction with its entry in the audit log, and counts the version up."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.register("keys", load_subject)
        database.register("audit", audit.load_subject)

    def create(self, new: NewKey, actor: Actor) -> tuple[StoredKey, str]:
        """The key and its secret, which is nowhere else.

        Raises:
            InvalidRequest: a live key has the name.
            StorageError: the database cannot be written.
        """
        from corral.server.keys.tables import KEYS

        secret = new_secret()
        values = {
            "id": new_id(),
            "name": new.name,
            "role": str(new.role),
            "digest": hex_digest(secret),
            "created_at": time.time(),
            "expires_at": new.expires_at,
            "models": None if new.models is None else msgspec.json.encode(new.models).decode(),
            **{name: getattr(new.quotas, name) for name in QUOTA_NAMES},
            "priority": new.priority,
            "cache_scope": new.cache_scope,
        }

        def insert(connection: Connection) -> StoredKey:
            _count_up(connection)
            if _live_of_name(connection, new.name) is not None:
                message = f"there is a key named {new.name!r} already; revoke it first, or take another name"
                raise InvalidRequest(message, param="name", code="name_taken")
            connection.execute(KEYS.insert().values(values))
            audit.record(connection, Entry(actor, "key.create", f"{values['id']} {new.name}"))
            found = _find(connection, str(values["id"]))
            if found is None:  # it was inserted in this transaction
                raise StorageError("the key that was just made is not there", "failed")
            return found

        return self.database.run_now(insert), secret

    def all(self) -> list[StoredKey]:
        """In the order of their making. Raises StorageError."""
        return self.database.run_now(_read_all)

    def snapshot(self) -> tuple[int, list[StoredKey]]:
        """The version and the keys as they are at it. Raises StorageError."""
        return self.database.run_now(lambda connection: (_version(connection), _read_all(connection)))

    def version(self) -> int:
        """Counts the changes of keys. Raises StorageError."""
        return self.database.run_now(_version)

    def revoke(self, which: str, actor: Actor) -> StoredKey | None:
        """Ends a key for good; None if there is none of that id or live name. Done twice, it is as done once."""
        from corral.server.keys.tables import KEYS

        def write(connection: Connection) -> StoredKey | None:
            _count_up(connection)
            key = _find(connection, which)
            if key is None or key.revoked_at is not None:
                return key
            change = KEYS.update().where(KEYS.c.id == key.id)
            connection.execute(change.values(revoked_at=time.time(), former_digest=None, former_until=None))
            audit.record(connection, Entry(actor, "key.revoke", f"{key.id} {key.name}"))
            return _find(connection, key.id)

        return self.database.run_now(write)

    def rotate(self, which: str, actor: Actor, grace_s: float = 0.0) -> tuple[StoredKey, str] | None:
        """The key with a new secret, and that; None if there is none of that id or live name.

        Args:
            grace_s: how long the old secret still works.

        Raises:
            InvalidRequest: it is revoked or has expired.
            StorageError: the database cannot be written.
        """
        from corral.server.keys.tables import KEYS

        secret = new_secret()

        def write(connection: Connection) -> StoredKey | None:
            _count_up(connection)
            key = _find(connection, which)
            if key is None:
                return None
            now = time.time()
            if key.refusal(now):
                message = f"the key {key.name!r} is {key.status(now)}; create a new one"
                raise InvalidRequest(message, param="id", code="key_not_active")
            former = {"former_digest": key.digest.hex(), "former_until": now + grace_s} if grace_s > 0 else {}
            values = {"digest": hex_digest(secret), "former_digest": None, "former_until": None, **former}
            connection.execute(KEYS.update().where(KEYS.c.id == key.id).values(values))
            audit.record(connection, Entry(actor, "key.rotate", f"{key.id} {key.name}"))
            return _find(connection, key.id)

        key = self.database.run_now(write)
        return None if key is None else (key, secret)

    def touch(self, used: Mapping[str, float]) -> None:
        """Notes when keys were used last, by their ids; no change of the keys, so the version stays."""
        from corral.server.keys.tables import KEYS

        def write(connection: Connection) -> None:
            for key_id in sorted(used):  # in one order, so that no two servers wait for each other
                later = KEYS.c.last_used_at.is_(None) | (KEYS.c.last_used_at < used[key_id])
                connection.execute(KEYS.update().where(KEYS.c.id == key_id, later).values(last_used_at=used[key_id]))

        self.database.run_now(write)


def _count_up(connection: Connection) -> None:
    """The first thing of every change: other changes wait for this one's end."""
    from corral.server.keys.tables import VERSION

    connection.execute(VERSION.update().values(version=VERSION.c.version + 1))


def _version(connection: Connection) -> int:
    from sqlalchemy import select

    from corral.server.keys.tables import VERSION

    return int(connection.execute(select(VERSION.c.version)).scalar_one())


def _read_all(connection: Connection) -> list[StoredKey]:
    from sqlalchemy import select

    from corral.server.keys.tables import KEYS

    rows: Iterable[Mapping[str, Any]] = connection.execute(select(KEYS).order_by(KEYS.c.number)).mappings()  # type: ignore[assignment]
    return [_key_of(row) for row in rows]


def _live_of_name(connection: Connection, name: str) -> StoredKey | None:
    from sqlalchemy import select

    from corral.server.keys.tables import KEYS

    query = select(KEYS).where(KEYS.c.name == name, KEYS.c.revoked_at.is_(None))
    row: Any = connection.execute(query).mappings().first()
    return None if row is None else _key_of(row)


def _find(connection: Connection, which: str) -> StoredKey | None:
    """The key of an id, else the live one of a name."""
    from sqlalchemy import select

    from corral.server.keys.tables import KEYS

    row: Any = connection.execute(select(KEYS).where(KEYS.c.id == which)).mappings().first()
    return _key_of(row) if row is not None else _live_of_name(connection, which)


def _key_of(row: Mapping[str, Any]) -> StoredKey:
    models = row["models"]
    former = row["former_digest"]
    return StoredKey(
        id=row["id"],
        name=row["name"],
        role=Role(row["role"]),
        digest=bytes.fromhex(row["digest"]),
        former_digest=None if former is None else bytes.fromhex(former),
        former_until=row["former_until"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
        models=None if models is None else tuple(msgspec.json.decode(models, type=list[str])),
        quotas=Quotas(**{name: row[name] for name in QUOTA_NAMES}),
        priority=row["priority"],
        cache_scope=row["cache_scope"],
    )
