"""`corral keys`: who may use the servers of a database, and how much. Works with and without a running server."""

from __future__ import annotations

import contextlib
import getpass
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from corral.cli import human
from corral.cli.options import POSITIVE, option
from corral.errors import CorralError, InvalidRequest

if TYPE_CHECKING:
    from corral.server.database import Database
    from corral.server.keys.audit import Actor
    from corral.server.keys.key import StoredKey

ROLES = ("admin", "user", "viewer")
database_url = option(
    "--database-url", envvar="CORRAL_DATABASE_URL", metavar="URL", show_default=False,
    help="Where keys, usage, responses, files and batches are kept: postgresql://USER:PASSWORD@HOST/NAME; by default a "
    "file in Corral's data folder. The password is better put into the environment than on a command line.",
)  # fmt: skip


@click.group("keys", short_help="Make and revoke API keys.", no_args_is_help=True)
def keys() -> None:
    """Make, list, revoke and rotate API keys.

    They take effect within about a second on every server of the database. As soon as one exists, servers ask for it.
    """


@keys.command("create")
@click.argument("name")
@option("--role", type=click.Choice(ROLES), default="user", help="admin manages, user uses models, viewer looks.")
@option("--expires", metavar="TIME", help="When it ends: 30d, 12h, or a date as 2030-01-31; by default never.")
@option("--model", "models", multiple=True, metavar="MODEL", help="Model that it may use; may be given again.")
@option("--requests-per-minute", type=POSITIVE, metavar="N", help="Most requests in a minute.")
@option("--requests-per-day", type=POSITIVE, metavar="N", help="Most requests in a day.")
@option("--tokens-per-minute", type=POSITIVE, metavar="N", help="Most tokens of prompts and answers in a minute.")
@option("--tokens-per-day", type=POSITIVE, metavar="N", help="Most tokens of prompts and answers in a day.")
@option("--max-concurrent", type=POSITIVE, metavar="N", help="Most requests under way at once, waiting ones too.")
@option("--priority", type=float, default=1.0, help="Its share beside other keys that wait: 2 is twice that of 1.")
@option("--cache-scope", metavar="NAME", help="Keys of one scope share cached prefixes; by default none do.")
@database_url
@option("--json", "as_json", is_flag=True, help="Print JSON, the secret in it.")
def create(
    name: str,
    *,
    role: str,
    expires: str | None,
    models: tuple[str, ...],
    priority: float,
    cache_scope: str | None,
    database_url: str | None,
    as_json: bool,
    **quotas: int | None,
) -> None:
    """Make a key, and print its secret, which is shown this once: KEY=$(corral keys create NAME)."""
    from corral.server.caller import Quotas, Role
    from corral.server.keys.expiry import parse_expiry
    from corral.server.keys.key import NewKey
    from corral.server.keys.store import KeyStore

    with _usage_errors():
        new = NewKey(
            name=name,
            role=Role(role),
            expires_at=None if expires is None else parse_expiry(expires, time.time()),
            models=models or None,
            quotas=Quotas(**quotas),
            priority=priority,
            cache_scope=cache_scope,
        )
    with open_database(database_url) as database, _plain_errors():
        key, secret = KeyStore(database).create(new, local_actor())
    _show_secret(key, secret, as_json=as_json)


@keys.command("list")
@database_url
@option("--json", "as_json", is_flag=True, help="Print JSON, times in Unix seconds.")
def list_keys(*, database_url: str | None, as_json: bool) -> None:
    """List the keys, without their secrets, which nobody has kept."""
    from corral.server.keys.store import KeyStore

    with open_database(database_url) as database:
        found = KeyStore(database).all() if database.is_there else []
    if as_json:
        click.echo(json.dumps([key.public() for key in found], indent=2))
        return
    now = time.time()
    rows = [("ID", "NAME", "ROLE", "STATUS", "CREATED", "EXPIRES", "LAST USED", "MODELS")]
    rows += [
        (
            *(key.id, key.name, str(key.role), key.status(now), _moment(key.created_at), _moment(key.expires_at)),
            *(_moment(key.last_used_at), human.short(", ".join(key.models)) if key.models else "all"),
        )
        for key in found
    ]
    click.echo(human.table(rows))


@keys.command("revoke")
@click.argument("key")
@database_url
def revoke(key: str, *, database_url: str | None) -> None:
    """End KEY, an id or a name, for good."""
    from corral.server.keys.store import KeyStore

    with open_database(database_url) as database:
        found = KeyStore(database).revoke(key, local_actor())
    if found is None:
        raise _no_key(key)
    click.echo(f"revoked {found.id} ({found.name})", err=True)


@keys.command("rotate")
@click.argument("key")
@option("--grace", metavar="TIME", help="How long the old secret still works: 12h, 7d; by default not at all.")
@database_url
@option("--json", "as_json", is_flag=True, help="Print JSON, the secret in it.")
def rotate(key: str, *, grace: str | None, database_url: str | None, as_json: bool) -> None:
    """Give KEY, an id or a name, a new secret, and print that; all else of it stays."""
    from corral.server.keys.expiry import parse_span
    from corral.server.keys.store import KeyStore

    with _usage_errors():
        grace_s = 0.0 if grace is None else parse_span(grace, "grace")
    with open_database(database_url) as database, _plain_errors():
        rotated = KeyStore(database).rotate(key, local_actor(), grace_s)
    if rotated is None:
        raise _no_key(key)
    _show_secret(*rotated, as_json=as_json)


@keys.command("audit")
@option("--limit", type=POSITIVE, default=50, metavar="N", help="How many entries.")
@database_url
@option("--json", "as_json", is_flag=True, help="Print JSON, times in Unix seconds.")
def audit(*, limit: int, database_url: str | None, as_json: bool) -> None:
    """List what was done to keys and models, the newest first. The log only grows; nothing in it can be changed."""
    from corral.server.keys.audit import AuditLog

    with open_database(database_url) as database:
        entries = AuditLog(database).page(limit=limit) if database.is_there else []
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    rows = [("TIME", "WHO", "FROM", "ACTION", "TARGET", "OUTCOME")]
    rows += [
        (
            datetime.fromtimestamp(entry["at"], UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
            *(entry[name] for name in ("actor", "address", "action", "target", "outcome")),
        )
        for entry in entries
    ]
    click.echo(human.table(rows))


@contextlib.contextmanager
def open_database(url: str | None) -> Iterator[Database]:
    from corral.server.database import Database

    with Database(url).for_now() as database:
        yield database


def local_actor() -> Actor:
    """The user of this machine."""
    from corral.server.keys.audit import Actor

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = "unknown"
    return Actor(f"user {name}")


def _show_secret(key: StoredKey, secret: str, *, as_json: bool) -> None:
    """The secret alone on stdout, so that a shell can take it."""
    if as_json:
        click.echo(json.dumps({**key.public(), "key": secret}, indent=2))
        return
    click.echo(secret)
    click.echo(f"{key.id} ({key.name}, {key.role}); the secret is not shown again", err=True)


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        raise click.UsageError(error.message) from None


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """What is wrong with a key is no fault of the command's."""
    try:
        yield
    except InvalidRequest as error:
        raise CorralError(error.message) from None


def _no_key(which: str) -> CorralError:
    return CorralError(f"there is no key {which!r}; `corral keys list` shows those that are there")


def _moment(seconds: float | None) -> str:
    return human.moment(None if seconds is None else datetime.fromtimestamp(seconds, UTC))
