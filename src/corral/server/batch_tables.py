"""Tables of files and batches. Imported on the database's threads only."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

from corral.server.database import Subject

TABLES = MetaData()

FILES = Table(
    "files",
    TABLES,
    Column("number", Integer, primary_key=True),
    Column("id", String(64), unique=True, nullable=False),
    Column("owner", String(64), index=True, nullable=False),  # digest of the API key
    Column("purpose", String(64), nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
)

BATCHES = Table(
    "batches",
    TABLES,
    Column("number", Integer, primary_key=True),
    Column("id", String(64), unique=True, nullable=False),
    Column("owner", String(64), index=True, nullable=False),
    Column("status", String(16), index=True, nullable=False),
    Column("object", Text, nullable=False),  # OpenAI's batch object, as JSON
    Column("output_seconds", BigInteger),  # how long its output files live
)


def subject() -> Subject:
    return Subject("batches", TABLES)
