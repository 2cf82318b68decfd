"""The tables of stored responses. Imports sqlalchemy, so only the database's threads import this."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table

from corral.server.database import Subject

METADATA = MetaData()
RESPONSES = Table(
    "responses",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),  # the order of their ends
    Column("id", String(64), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),  # digest of the API key
    Column("created_at", Integer, nullable=False),  # Unix seconds
    Column("previous_id", String(64)),
    Column("num_bytes", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),  # the response object, JSON
    Column("input_items", LargeBinary, nullable=False),  # JSON
    Index("responses_sizes", "number", "num_bytes"),
    sqlite_autoincrement=True,
)
ITEMS = Table(
    "response_items",
    METADATA,
    Column("item_id", String(128), primary_key=True),
    Column("number", ForeignKey("responses.number", ondelete="CASCADE"), primary_key=True),
    Index("response_items_numbers", "number"),
)


def subject() -> Subject:
    return Subject("responses", METADATA)
