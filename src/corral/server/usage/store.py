"""Usage in the database. Everything here blocks: it runs on threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from corral.server.database import Database, Subject
from corral.server.quotas import DayUse
from corral.server.usage.totals import FIGURES, MAXIMA, Cell, Totals

if TYPE_CHECKING:
    from sqlalchemy import Connection

BY = ("day", "key", "model")


@dataclass(frozen=True, slots=True)
class Question:
    """Which usage, and how it is summed.

    Args:
        first, last: days, as 2026-01-31; both are part of it.
        by: what each line is of, in this order; of BY.
        keys: ids or names of keys; empty is all.
        models: names; empty is all.
        key_id: of the one key that may be told of; None is any.
    """

    first: str
    last: str
    by: Sequence[str] = ("key",)
    keys: Sequence[str] = ()
    models: Sequence[str] = ()
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """Figures of a day, a key and a model, or of those of them that are asked for; the others are None."""

    day: str | None = None
    key_id: str | None = None
    key_name: str | None = None
    model: str | None = None
    totals: Totals = field(default_factory=Totals)


def load_subject() -> Subject:
    from corral.server.usage.tables import usage_subject

    return usage_subject()


class UsageStore:
    """See the head of this file."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.register("usage", load_subject)

    def add(
        self, used: Mapping[Cell, Totals], names: Mapping[str, str], today: str, keep_from: str | None = None
    ) -> dict[str, DayUse]:
        """Adds what was used, and tells what every key has used today, by all servers of the database.

        Args:
            names: of the keys, by their ids.
            keep_from: the first day that is kept; None keeps all.

        Raises:
            StorageError: nothing was added.
        """
        from corral.server.usage.tables import UPSERT, USAGE

        # In one order, so that no two servers wait for each other.
        rows = [
            {
                "day": cell.day,
                "key_id": _clean(cell.key_id),
                "model": _clean(cell.model),
                "key_name": _clean(names.get(cell.key_id, "")),
                **asdict(used[cell]),
            }
            for cell in sorted(used)
        ]

        def write(connection: Connection) -> dict[str, DayUse]:
            from sqlalchemy import text

            if rows:
                connection.execute(text(UPSERT), rows)
            if keep_from is not None:
                connection.execute(USAGE.delete().where(USAGE.c.day < keep_from))
            return _used_on(connection, today)

        return self.database.run_now(write)

    def read(self, question: Question) -> list[Line]:
        """In the order of what the lines are of. Raises StorageError."""
        return self.database.run_now(lambda connection: _read(connection, question))


def _used_on(connection: Connection, day: str) -> dict[str, DayUse]:
    from sqlalchemy import func, select

    from corral.server.usage.tables import USAGE

    tokens = func.sum(USAGE.c.prompt_tokens + USAGE.c.completion_tokens)
    query = select(USAGE.c.key_id, func.sum(USAGE.c.requests), tokens).where(USAGE.c.day == day)
    rows: Iterable[Any] = connection.execute(query.group_by(USAGE.c.key_id))
    return {key_id: DayUse(int(requests), int(tokens)) for key_id, requests, tokens in rows}


def _read(connection: Connection, question: Question) -> list[Line]:
    from sqlalchemy import func, or_, select

    from corral.server.usage.tables import USAGE

    columns = {"day": USAGE.c.day, "key": USAGE.c.key_id, "model": USAGE.c.model}
    groups = [columns[name] for name in question.by]
    figures = [(func.max if name in MAXIMA else func.sum)(USAGE.c[name]).label(name) for name in FIGURES]
    query = select(*groups, *figures, func.max(USAGE.c.key_name).label("key_name"))
    query = query.where(USAGE.c.day >= question.first, USAGE.c.day <= question.last)
    if question.keys:
        query = query.where(or_(USAGE.c.key_id.in_(question.keys), USAGE.c.key_name.in_(question.keys)))
    if question.key_id is not None:
        query = query.where(USAGE.c.key_id == question.key_id)
    if question.models:
        query = query.where(USAGE.c.model.in_(question.models))
    if groups:
        query = query.group_by(*groups).order_by(*groups)
    lines = []
    rows: Iterable[Any] = connection.execute(query).mappings()
    for row in rows:
        if row["requests"] is None:  # a sum over nothing
            continue
        lines.append(
            Line(
                day=row.get("day"),
                key_id=row.get("key_id"),
                key_name=row["key_name"] if "key" in question.by else None,
                model=row.get("model"),
                totals=Totals.of(row),
            )
        )
    return lines


def _clean(text: str) -> str:
    return text.replace("\0", "?")  # PostgreSQL has no NUL
