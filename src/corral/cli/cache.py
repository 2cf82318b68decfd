"""`corral cache`: the packed weights on disk, from which a model starts at once."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import click

from corral.cli import human
from corral.cli.options import option
from corral.errors import CorralError, InvalidModelFile

_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"))


@click.group("cache", short_help="See to the packed weights on disk.", no_args_is_help=True)
def cache() -> None:
    """Look at the packed weights that are kept on disk, check them, or remove them."""


@cache.command("list")
@option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def list_cached(*, as_json: bool) -> None:
    """List the models whose packed weights are on disk, the one used last first."""
    from corral.model.memory import size_text
    from corral.model.packed_cache import PackedCache

    entries = PackedCache().entries()
    if as_json:
        click.echo(json.dumps([asdict(entry) | {"path": str(entry.path)} for entry in entries], indent=2))
        return
    rows = [("MODEL", "SIZE", "LAST USED", "FILE")]
    now = time.time()
    rows += [
        (_name(entry.model), size_text(entry.num_bytes), _age(now - entry.last_used_s), entry.path.name)
        for entry in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows if entries else []:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


@cache.command("verify")
def verify() -> None:
    """Read all packed weights and compare their checksums; damaged files are removed, to be made again.

    Exits with 1 if there were any.
    """
    from corral.model.packed_cache import PackedCache
    from corral.model.packed_file import PackedFile

    damaged = 0
    for entry in PackedCache().entries():
        try:
            PackedFile(entry.path).verify()
        except FileNotFoundError:  # removed since
            continue
        except InvalidModelFile as error:
            damaged += 1
            entry.path.unlink(missing_ok=True)
            click.echo(f"removed  {error}")
        else:
            click.echo(f"good     {_name(entry.model)}: {entry.path.name}")
    if damaged:
        raise CorralError(f"damaged and removed: {damaged}")


@cache.command("clear")
def clear() -> None:
    """Remove all packed weights; the next load of a model makes its own again."""
    from corral.model.memory import size_text
    from corral.model.packed_cache import PackedCache

    try:
        entries = PackedCache().clear()
    except OSError as error:
        raise CorralError(f"the cache cannot be cleared: {error}") from error
    click.echo(f"{len(entries)} removed, {size_text(sum(entry.num_bytes for entry in entries))} freed")


def _name(model: str | None) -> str:
    """A model's name without what steers a terminal: it comes from a file."""
    if model is None:
        return "(unusable)"
    return human.printable(model)


def _age(seconds: float) -> str:
    for unit, name in _UNITS:
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name} ago"
    return "just now" if seconds < 60 else "a minute ago"
