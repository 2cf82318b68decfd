"""Keys and the audit log in the database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from corral.errors import InvalidConfig, InvalidRequest, StorageError
from corral.server.caller import Quotas, Role
from corral.server.database import Database
from corral.server.keys.audit import Actor, AuditLog, Entry
from corral.server.keys.expiry import parse_expiry, parse_span
from corral.server.keys.key import PREFIX, NewKey, hex_digest
from corral.server.keys.store import KeyStore
from tests.server.databases import database_url, postgres

__all__ = ["database_url", "postgres"]
ME = Actor("user tester")
TABLES = ("SELECT * FROM api_keys", "SELECT * FROM audit_log")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url).for_now() as made:
        yield made


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


def test_a_key_is_kept_whole_and_its_secret_nowhere(store: KeyStore, database: Database) -> None:
    quotas = Quotas(1, 2, 3, 4_000_000_000_000, 5)
    new = NewKey("Büro", Role.VIEWER, time.time() + 60, ("a", "b:c"), quotas, 2.5, "team")
    key, secret = store.create(new, ME)
    assert secret.startswith(PREFIX)
    assert len(secret) == len(PREFIX) + 43  # 256 bits in base64
    assert store.all() == [key]
    assert (key.name, key.role, key.models, key.quotas) == (new.name, new.role, new.models, new.quotas)
    assert (key.priority, key.cache_scope, key.expires_at) == (2.5, "team", new.expires_at)
    assert key.digest.hex() == hex_digest(secret)
    rows = database.run_now(lambda c: [c.execute(text(query)).all() for query in TABLES])
    assert secret not in str(rows)
    assert secret.removeprefix(PREFIX) not in str(rows)
    assert "digest" not in key.public()


def test_every_change_counts_the_version_up(store: KeyStore) -> None:
    versions = [store.version()]
    key, _ = store.create(NewKey("one"), ME)
    versions.append(store.version())
    store.rotate(key.id, ME)
    versions.append(store.version())
    store.touch({key.id: time.time()})
    assert store.version() == versions[-1]
    store.revoke("one", ME)
    versions.append(store.version())
    assert versions == sorted(set(versions))


def test_a_name_is_one_live_keys(store: KeyStore) -> None:
    first, _ = store.create(NewKey("ci"), ME)
    with pytest.raises(InvalidRequest, match="already"):
        store.create(NewKey("ci"), ME)
    assert store.revoke("ci", ME) is not None
    second, _ = store.create(NewKey("ci"), ME)
    assert [key.id for key in store.all()] == [first.id, second.id]
    rotated = store.rotate("ci", ME)
    assert rotated is not None
    assert rotated[0].id == second.id


def test_of_keys_made_at_once_under_one_name_one_is_made(store: KeyStore) -> None:
    store.version()
    barrier = threading.Barrier(4)

    def make() -> bool:
        barrier.wait()
        try:
            store.create(NewKey("same"), ME)
        except InvalidRequest:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        made = [future.result() for future in [threads.submit(make) for _ in range(4)]]
    assert sorted(made) == [False, False, False, True]


def test_rotation_keeps_all_but_the_secret(store: KeyStore) -> None:
    old, secret = store.create(NewKey("ci", quotas=Quotas(max_concurrent=3)), ME)
    rotated = store.rotate("ci", ME, grace_s=60)
    assert rotated is not None
    new, new_secret = rotated
    assert (new.id, new.quotas, new.created_at) == (old.id, old.quotas, old.created_at)
    assert new_secret != secret
    assert new.former_digest == old.digest
    assert new.former_until is not None
    again = store.rotate("ci", ME)
    assert again is not None
    assert again[0].former_digest is None


def test_what_is_revoked_stays_so(store: KeyStore) -> None:
    key, _ = store.create(NewKey("ci"), ME)
    revoked = store.revoke(key.id, ME)
    assert revoked is not None
    assert store.revoke(key.id, ME) == revoked
    with pytest.raises(InvalidRequest, match="revoked"):
        store.rotate(key.id, ME)
    assert store.revoke("none", ME) is None
    assert store.rotate("none", ME) is None


def test_the_log_has_every_change(store: KeyStore, database: Database) -> None:
    key, _ = store.create(NewKey("ci"), ME)
    store.rotate("ci", ME)
    store.revoke("ci", Actor("boss", "key_1", "10.0.0.1"))
    store.revoke(key.id, ME)  # changes nothing, so it is not told
    entries = AuditLog(database).page(limit=10)
    assert [entry["action"] for entry in entries] == ["key.revoke", "key.rotate", "key.create"]
    assert [entries[0][name] for name in ("actor", "actor_id", "address")] == ["boss", "key_1", "10.0.0.1"]
    assert {entry["target"] for entry in entries} == {f"{key.id} ci"}
    assert AuditLog(database).page(limit=1, before=entries[0]["number"])[0]["action"] == "key.rotate"


@pytest.mark.parametrize("sql", ["UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log"])
def test_the_log_cannot_be_changed(database: Database, sql: str) -> None:
    log = AuditLog(database)
    log.add(Entry(ME, "model.pull", "a\0b" + "x" * 1000))
    with pytest.raises(StorageError, match="append-only"):
        database.run_now(lambda c: c.execute(text(sql)))
    [entry] = log.page(limit=10)
    assert (entry["actor"], len(entry["target"])) == ("user tester", 400)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": " a"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a", "expires_at": 1.0}, "expires"),
        ({"name": "a", "expires_at": float("inf")}, "expires"),
        ({"name": "a", "models": ()}, "models"),
        ({"name": "a", "models": ("",)}, "models"),
        ({"name": "a", "models": ("m",) * 101}, "models"),
        ({"name": "a", "quotas": Quotas(tokens_per_day=0)}, "tokens_per_day"),
        ({"name": "a", "quotas": Quotas(tokens_per_day=2**63)}, "tokens_per_day"),
        ({"name": "a", "priority": 0.0}, "priority"),
        ({"name": "a", "priority": float("nan")}, "priority"),
        ({"name": "a", "cache_scope": ""}, "cache_scope"),
    ],
)
def test_what_a_key_cannot_be(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        NewKey(**fields)  # type: ignore[arg-type]
    assert caught.value.param == param


def test_times() -> None:
    assert [parse_span(text, "x") for text in ("45s", "15m", "12h", "30d", "2w", 90)] == [
        *(45, 900, 43200, 30 * 86400, 14 * 86400),
        90,
    ]
    assert parse_expiry("1h", 1000.0) == 4600.0
    assert parse_expiry("2030-01-31", 0.0) == parse_expiry("2030-01-31T00:00:00Z", 0.0) == 1896048000
    assert parse_expiry(1896048000, 0.0) == 1896048000
    for wrong in ("1x", "", "-1d", "d", "1d1h", "tomorrow", "99999999w", "٣d"):
        with pytest.raises(InvalidRequest, match="expires is"):
            parse_expiry(wrong, 0.0)


@pytest.mark.parametrize("url", ["mysql://a:hush@b/c", "hush", "sqlite://", "postgresql+asyncpg://a:hush@b/c"])
def test_other_urls_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(InvalidConfig, match="must be postgresql") as caught:
        Database(url)
    assert "hush" not in str(caught.value)


@pytest.mark.slow
def test_a_postgres_that_is_not_there_is_busy_and_keeps_the_password() -> None:
    pytest.importorskip("psycopg")
    database = Database("postgresql://me:hush@127.0.0.1:1/none")
    with database.for_now(), pytest.raises(StorageError) as caught:
        KeyStore(database).all()
    assert caught.value.reason == "busy"
    assert "hush" not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.slow
def test_servers_that_start_at_once_make_the_tables_once(postgres: str) -> None:
    def start() -> int:
        with Database(postgres).for_now() as database:
            return KeyStore(database).version()

    with ThreadPoolExecutor(6) as threads:
        assert len({future.result() for future in [threads.submit(start) for _ in range(6)]}) == 1
