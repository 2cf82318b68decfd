"""The front process's database, opened at the first use and never on the event loop: a SQLite file, or PostgreSQL.

sqlalchemy takes some 200 ms to import, so only functions import it, on the database's own threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from corral.config import data_home
from corral.errors import InvalidConfig, StorageError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData
    from sqlalchemy.exc import DBAPIError

logger = logging.getLogger("corral.server")

FILE_NAME = "corral.db"
NUM_THREADS = 4
BUSY_TIMEOUT_S = 10.0  # how long a write waits for another process's
CONNECT_TIMEOUT_S = 10
_POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_PREPARING = 0x636F7272  # PostgreSQL's advisory lock under which tables are made: two servers may start at once
_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_versions (subject VARCHAR(64) PRIMARY KEY, version INTEGER NOT NULL)"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Subject:
    """The tables of one part of the server, which no other part touches.

    Args:
        name: unique among the subjects.
        tables: as they are now.
        version: counts their changes, from 1.
        migrations: by the version that it makes out of the one before.
    """

    name: str
    tables: MetaData
    version: int = 1
    migrations: Mapping[int, Callable[[Connection], None]] = field(default_factory=dict)


class Database:
    """Runs functions in transactions on a few threads.

    Args:
        url: postgresql://USER:PASSWORD@HOST/NAME or sqlite:////PATH; None is a file in Corral's data folder.

    Raises:
        InvalidConfig: the URL is none of these.
    """

    def __init__(self, url: str | None = None) -> None:
        if url is not None:
            check_url(url)
        self._url = url
        self._subjects: dict[str, Callable[[], Subject]] = {}
        self._is_prepared: set[str] = set()
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(NUM_THREADS, "database")

    def register(self, name: str, load: Callable[[], Subject]) -> None:
        """Makes a subject's tables be there before the next function runs; `load` may import sqlalchemy."""
        self._subjects[name] = load

    async def run(self, function: Callable[[Connection], _T]) -> _T:
        """What `function` returns, called on a thread in a transaction that its end commits and an error undoes.

        A caller that is cancelled does not stop it.

        Raises:
            StorageError: the database is locked, damaged or full, or cannot be opened.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, copy_context().run, self.run_now, function
        )

    def run_now(self, function: Callable[[Connection], _T]) -> _T:
        """As `run`, on a thread of the caller's."""
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.exc import TimeoutError as PoolTimeout

        try:
            with self._open().begin() as connection:
                return function(connection)
        except DBAPIError as error:
            raise self._explain(error) from error
        except PoolTimeout as error:
            raise StorageError("no connection to the database has become free", "busy") from error

    @property
    def is_there(self) -> bool:
        """Whether anybody can have written it: a file is made at the first use."""
        path = _path_of(self._url)
        return path is None or self._engine is not None or path.exists()

    def warm_up(self) -> None:
        """Imports what the first look will need, if there is anything to look at."""
        if self.is_there:
            import sqlalchemy.dialects.sqlite  # noqa: F401

    @property
    def is_shared(self) -> bool:
        """Whether servers with other data folders may use it too."""
        return self._url is not None and self._url.startswith(_POSTGRES)

    @contextlib.contextmanager
    def for_now(self) -> Iterator[Database]:
        """Itself, closed at the block's end; for who has no event loop."""
        try:
            yield self
        finally:
            self._threads.shutdown()
            if self._engine is not None:
                self._engine.dispose()

    async def close(self) -> None:
        """Waits for what runs."""
        await asyncio.to_thread(self._threads.shutdown)
        if self._engine is not None:
            await asyncio.to_thread(self._engine.dispose)

    def _open(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = _make_engine(self._url)
            for name in self._subjects.keys() - self._is_prepared:
                _prepare(self._engine, self._subjects[name]())
                self._is_prepared.add(name)
            return self._engine

    def _explain(self, error: DBAPIError) -> StorageError:
        where = self._engine.url.render_as_string() if self._engine is not None else "the database"  # no password
        text = " ".join(str(error.orig).split())
        is_postgres = self._engine is not None and self._engine.dialect.name == "postgresql"
        reason = _reason(error, text, is_postgres=is_postgres)
        if reason == "damaged":
            text += "; move the file away to start with an empty one"
        logger.error("%s: %s", where, text)
        return StorageError(f"{where}: {text}", reason)


def check_url(url: str) -> None:
    """Raises InvalidConfig, which repeats nothing of the URL: it may hold a password."""
    if url.startswith(_POSTGRES):
        try:
            import psycopg  # noqa: F401 - sqlalchemy's dialect does it later, and says less
        except ImportError:
            raise InvalidConfig(
                "PostgreSQL needs the package psycopg; install it with `pip install 'corral[postgres]'`"
            ) from None
    elif not url.startswith("sqlite:///"):
        raise InvalidConfig("the database URL must be postgresql://USER:PASSWORD@HOST/NAME or sqlite:////PATH")


def _reason(error: DBAPIError, text: str, *, is_postgres: bool) -> str:
    from sqlalchemy.exc import OperationalError

    state = getattr(error.orig, "sqlstate", None)
    if state is not None:  # PostgreSQL's five characters, of which two are the class
        if state == "53100":
            return "full"
        if state in ("XX001", "XX002"):
            return "failed"  # its own files are damaged, which moving nothing away mends
        # Lost connections, deadlocks and lost races, too many clients, a lock that is held, a server that starts.
        return "busy" if state[:2] in ("08", "40", "53", "55", "57") else "failed"
    if is_postgres:
        return "busy" if isinstance(error, OperationalError) else "failed"
    if "locked" in text or "busy" in text:
        return "busy"
    if "full" in text:
        return "full"
    return "damaged" if "malformed" in text or "not a database" in text else "failed"


def _make_engine(url: str | None) -> Engine:
    """The only place where an engine is made."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import SQLAlchemyError

    if (path := _path_of(url)) is not None:
        _make_private(path)
    if url is None:
        url = f"sqlite:///{path}"
    elif url.startswith(_POSTGRES):
        url = f"postgresql+psycopg://{url.partition('://')[2]}"
    # A connection that PostgreSQL has closed meanwhile is replaced before it is used.
    is_file = url.startswith("sqlite")
    try:
        engine = create_engine(url, pool_size=NUM_THREADS, pool_pre_ping=not is_file, connect_args=_connect_args(url))
    except (SQLAlchemyError, ValueError) as error:
        raise InvalidConfig(f"the database URL cannot be read: {type(error).__name__}") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _path_of(url: str | None) -> Path | None:
    """The file of SQLite's; None for PostgreSQL, and for SQLite's own kind of URL."""
    if url is None:
        return data_home() / FILE_NAME
    if not url.startswith("sqlite:///") or url.startswith("sqlite:///file:"):
        return None
    return Path(url.removeprefix("sqlite:///").partition("?")[0])


def _connect_args(url: str) -> dict[str, float | bool | str]:
    if url.startswith("sqlite"):
        return {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "corral",
        "options": f"-c lock_timeout={int(BUSY_TIMEOUT_S * 1000)}",
    }


def _make_private(path: Path) -> None:
    """Only its owner reads it; SQLite gives its log beside it the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        logger.error("%s: %s", path, error.strerror)
        raise StorageError(f"{path}: {error.strerror}", "failed") from error


def _set_up_sqlite(connection: object, _record: object) -> None:
    # The driver must not begin transactions: it would begin them late, and a read that turns into a write then fails.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare(engine: Engine, subject: Subject) -> None:
    """Makes the subject's tables, or brings those of an older Corral up to date.

    Raises:
        StorageError: a newer Corral has written them.
    """
    from sqlalchemy import text

    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PREPARING})
        connection.execute(text(_VERSIONS))
        query = text("SELECT version FROM schema_versions WHERE subject = :subject")
        found = connection.execute(query, {"subject": subject.name}).scalar()
        if found is not None and found > subject.version:
            message = f"the {subject.name} tables are of version {found}; this Corral knows {subject.version}"
            raise StorageError(f"{engine.url.render_as_string()}: {message}", "failed")
        if found is not None:
            for version in range(found + 1, subject.version + 1):
                subject.migrations[version](connection)
        subject.tables.create_all(connection)
        if found != subject.version:
            connection.execute(text("DELETE FROM schema_versions WHERE subject = :subject"), {"subject": subject.name})
            connection.execute(
                text("INSERT INTO schema_versions VALUES (:subject, :version)"),
                {"subject": subject.name, "version": subject.version},
            )
