"""Tables of keys and of the audit log. Imported on the database's threads only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import DDL, BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, event

from corral.server.database import Subject

_ddl: Callable[[str], Any] = DDL  # it has no types
KEY_TABLES = MetaData()
KEYS = Table(
    "api_keys",
    KEY_TABLES,
    Column("number", Integer, primary_key=True),
    Column("id", String(64), unique=True, nullable=False),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), unique=True, nullable=False),  # SHA-256 of the secret, in hex
    Column("former_digest", String(64)),  # of the secret before the last rotation
    Column("former_until", Float),  # Unix seconds, as all times here
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("last_used_at", Float),
    Column("revoked_at", Float),
    Column("models", Text),  # a JSON list of names; NULL is all
    Column("requests_per_minute", BigInteger),
    Column("requests_per_day", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("tokens_per_day", BigInteger),
    Column("max_concurrent", BigInteger),
    Column("priority", Float, nullable=False),
    Column("cache_scope", String(64)),
)
# Two live keys of one name could not be told apart; a revoked one's name is free again.
_LIVE = KEYS.c.revoked_at.is_(None)
Index("api_keys_live_names", KEYS.c.name, unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE)
VERSION = Table(
    "api_keys_version",  # one row, counted up by whoever changes a key: its lock puts the changes in order
    KEY_TABLES,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)
event.listen(VERSION, "after_create", _ddl("INSERT INTO api_keys_version VALUES (1, 0)"))

AUDIT_TABLES = MetaData()
AUDIT = Table(
    "audit_log",
    AUDIT_TABLES,
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor_id", String(64), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(32), nullable=False),
    Column("target", String(400), nullable=False),
    Column("address", String(64), nullable=False),
    Column("outcome", String(64), nullable=False),
    sqlite_autoincrement=True,
)
_SQLITE = """CREATE TRIGGER audit_log_no_{0} BEFORE {0} ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"""
_POSTGRES = (
    """CREATE OR REPLACE FUNCTION corral_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$""",
    """CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION corral_append_only()""",
)
for _verb in ("UPDATE", "DELETE"):
    event.listen(AUDIT, "after_create", _ddl(_SQLITE.format(_verb)).execute_if(dialect="sqlite"))
for _statement in _POSTGRES:
    event.listen(AUDIT, "after_create", _ddl(_statement).execute_if(dialect="postgresql"))


def keys_subject() -> Subject:
    return Subject("keys", KEY_TABLES)


def audit_subject() -> Subject:
    return Subject("audit", AUDIT_TABLES)
