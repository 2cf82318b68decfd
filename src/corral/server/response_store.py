"""Stored responses: each API key's own, bounded in number, bytes and age; the oldest go first."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from corral.errors import InvalidRequest
from corral.server.database import Database, Subject

if TYPE_CHECKING:
    from sqlalchemy import Connection

MAX_ITEM_ID = 128  # characters


def _load_subject() -> Subject:
    from corral.server.response_tables import subject

    return subject()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept, of all keys together.

    Args:
        max_chain: responses that one may go on from, one after another.
        max_chain_bytes: of all of these.
    """

    max_responses: int = 50_000
    max_bytes: int = 1 << 30
    max_age_s: int = 30 * 24 * 3600  # OpenAI's
    max_chain: int = 500
    max_chain_bytes: int = 32 << 20


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response object, and the input items that it answered."""

    body: dict[str, Any]
    input_items: list[dict[str, Any]]


class ResponseStore:
    """Keeps responses in the front process's database. All of it runs on the database's threads."""

    def __init__(self, database: Database, limits: Limits | None = None) -> None:
        self._database = database
        self._limits = limits or Limits()
        database.register("responses", _load_subject)

    async def save(self, owner: str, stored: StoredResponse) -> None:
        """Keeps it, in the place of others that are too old or too many.

        Raises:
            StorageError: it could not be kept.
        """
        await self._database.run(lambda connection: self._save(connection, owner, stored))

    async def find(self, owner: str, response_id: str) -> StoredResponse | None:
        """Raises StorageError."""
        return await self._database.run(lambda connection: self._find(connection, owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        """Whether it was there. Raises StorageError."""
        return await self._database.run(lambda connection: _delete(connection, owner, response_id))

    async def history(self, owner: str, response_id: str) -> list[dict[str, Any]]:
        """The items of a conversation up to a response: inputs and outputs, the oldest first.

        Raises:
            InvalidRequest: one of its responses is not stored (any more), or they are too many.
            StorageError: the database fails.
        """
        return await self._database.run(lambda connection: self._history(connection, owner, response_id))

    async def find_items(self, owner: str, item_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """Those of the items that are there, by their ids. Raises StorageError."""
        return await self._database.run(lambda connection: self._find_items(connection, owner, item_ids))

    def _oldest(self) -> int:
        return int(time.time()) - self._limits.max_age_s

    def _save(self, connection: Connection, owner: str, stored: StoredResponse) -> None:
        from sqlalchemy import insert

        from corral.server.response_tables import ITEMS, RESPONSES

        body, items = msgspec.json.encode(stored.body), msgspec.json.encode(stored.input_items)
        row = {
            "id": stored.body["id"],
            "owner": owner,
            "created_at": stored.body["created_at"],
            "previous_id": stored.body["previous_response_id"],
            "num_bytes": len(body) + len(items),
            "body": body,
            "input_items": items,
        }
        number = connection.execute(insert(RESPONSES).values(row)).inserted_primary_key[0]  # type: ignore[index]
        ids = {item["id"] for item in (*stored.input_items, *stored.body["output"])}
        rows = [{"item_id": item_id, "number": number} for item_id in ids if len(item_id) <= MAX_ITEM_ID]
        if rows:
            connection.execute(insert(ITEMS), rows)
        self._prune(connection, number)

    def _prune(self, connection: Connection, newest: int) -> None:
        from sqlalchemy import delete, func, select

        from corral.server.response_tables import RESPONSES

        columns = RESPONSES.c
        connection.execute(delete(RESPONSES).where(columns.created_at < self._oldest(), columns.number != newest))
        number, size = connection.execute(select(func.count(), func.sum(columns.num_bytes))).one()
        if number <= self._limits.max_responses and size <= self._limits.max_bytes:
            return
        last = 0
        for row in connection.execute(select(columns.number, columns.num_bytes).order_by(columns.number)):
            last, number, size = row.number, number - 1, size - row.num_bytes
            if number <= self._limits.max_responses and size <= self._limits.max_bytes:
                break
        connection.execute(delete(RESPONSES).where(columns.number <= last, columns.number != newest))

    def _row(self, connection: Connection, owner: str, response_id: str) -> Any:
        from sqlalchemy import select

        from corral.server.response_tables import RESPONSES

        columns = RESPONSES.c
        query = select(columns.body, columns.input_items, columns.previous_id, columns.num_bytes)
        query = query.where(columns.id == response_id, columns.owner == owner, columns.created_at >= self._oldest())
        return connection.execute(query).one_or_none()

    def _find(self, connection: Connection, owner: str, response_id: str) -> StoredResponse | None:
        row = self._row(connection, owner, response_id)
        return None if row is None else _decode(row.body, row.input_items)

    def _history(self, connection: Connection, owner: str, response_id: str) -> list[dict[str, Any]]:
        chain: list[StoredResponse] = []
        num_bytes = 0
        wanted: str | None = response_id
        while wanted is not None:
            row = self._row(connection, owner, wanted)
            if row is None:
                message = f"Previous response with id '{wanted[:100]}' not found."
                raise InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
            num_bytes += row.num_bytes
            if len(chain) == self._limits.max_chain or num_bytes > self._limits.max_chain_bytes:
                message = f"previous_response_id goes on from more than {self._limits.max_chain} responses or "
                message += f"{self._limits.max_chain_bytes} bytes; begin anew"
                raise InvalidRequest(message, param="previous_response_id", code="conversation_too_long")
            chain.append(_decode(row.body, row.input_items))
            wanted = row.previous_id
        return [item for stored in reversed(chain) for item in (*stored.input_items, *stored.body["output"])]

    def _find_items(self, connection: Connection, owner: str, item_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        from sqlalchemy import func, select

        from corral.server.response_tables import ITEMS, RESPONSES

        columns = RESPONSES.c
        found: dict[str, dict[str, Any]] = {}
        for item_id in item_ids:
            if item_id in found:
                continue
            number = select(func.max(columns.number)).join(ITEMS, ITEMS.c.number == columns.number)
            number = number.where(
                ITEMS.c.item_id == item_id, columns.owner == owner, columns.created_at >= self._oldest()
            )
            query = select(columns.body, columns.input_items).where(columns.number == number.scalar_subquery())
            row = connection.execute(query).one_or_none()
            if row is not None:
                stored = _decode(row.body, row.input_items)
                found |= {item["id"]: item for item in (*stored.input_items, *stored.body["output"])}
        return found


def _delete(connection: Connection, owner: str, response_id: str) -> bool:
    from sqlalchemy import delete

    from corral.server.response_tables import RESPONSES

    columns = RESPONSES.c
    query = delete(RESPONSES).where(columns.id == response_id, columns.owner == owner)
    return connection.execute(query).rowcount > 0


def _decode(body: bytes, input_items: bytes) -> StoredResponse:
    return StoredResponse(msgspec.json.decode(body), msgspec.json.decode(input_items))
