"""The table of usage. Imported on the database's threads only."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, MetaData, Table, Text

from corral.server.database import Subject
from corral.server.usage.totals import FIGURES, MAXIMA

USAGE_TABLES = MetaData()
USAGE = Table(
    "usage_of_days",
    USAGE_TABLES,
    Column("day", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("key_name", Text, nullable=False),  # as it was last, for keys that are gone
    *(Column(name, Double if name.endswith("_s") else BigInteger, nullable=False) for name in FIGURES),
)


def _upsert() -> str:
    """SQLite and PostgreSQL know the same words for it."""
    names = [column.name for column in USAGE.columns]
    sets = ["key_name = excluded.key_name"]
    for name in FIGURES:
        mine, its = f"{USAGE.name}.{name}", f"excluded.{name}"
        larger = f"CASE WHEN {its} > {mine} THEN {its} ELSE {mine} END"
        sets.append(f"{name} = {larger if name in MAXIMA else f'{mine} + {its}'}")
    values = ", ".join(f":{name}" for name in names)
    return (
        f"INSERT INTO {USAGE.name} ({', '.join(names)}) VALUES ({values}) "  # noqa: S608 - all names are ours
        f"ON CONFLICT (day, key_id, model) DO UPDATE SET {', '.join(sets)}"
    )


UPSERT = _upsert()


def usage_subject() -> Subject:
    return Subject("usage", USAGE_TABLES)
