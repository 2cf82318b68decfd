"""`corral store`: the folder of models on disk: where it is, whether it is whole, what it can give back."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from corral.cli.options import option
from corral.cli.terminal import is_terminal
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.store.status import OnStatus


@click.group("store", no_args_is_help=True)
def store() -> None:
    """Look where models are kept, check every byte of them, or remove what nothing needs."""


@store.command("path")
@option("--json", "as_json", is_flag=True, help="Print JSON: our folder, and Ollama's.")
def path(*, as_json: bool) -> None:
    """Print the folder that models are kept in.

    Models of Ollama's folders are used where they are; --json names these folders.
    """
    from corral.store.library import Library

    library = Library.open()
    if as_json:
        folders = [str(folder) for folder in library.others]
        click.echo(json.dumps({"path": str(library.root), "read_only": folders}, indent=2))
    else:
        click.echo(str(library.root))


@store.command("verify")
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(*, as_json: bool) -> None:
    """Read every manifest and every byte of the store, and name what is missing, damaged, changed or foreign.

    Nothing is repaired. Exits with 1 if there is a problem.
    """
    from corral.store.library import Library
    from corral.store.verify import verify as verify_library

    library = Library.open()
    with _progress() as on_status:
        problems = verify_library(library, on_status=on_status)
    if as_json:
        found = [{"path": str(p.path), "fault": p.fault, "models": list(p.models)} for p in problems]
        click.echo(json.dumps({"path": str(library.root), "problems": found}, indent=2))
    else:
        for problem in problems:
            click.echo(_printable(str(problem)))
    if problems:
        raise CorralError(f"the store {library.root} has problems: {len(problems)}")
    if not as_json:
        click.echo(f"{library.root} is whole: {len(library.models())} models")


@store.command("prune")
@option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def prune(*, dry_run: bool, as_json: bool) -> None:
    """Remove files that no model needs, and what broken downloads have left.

    What is younger than an hour, or under way, stays; Ollama's folders and files used in place are not touched.
    """
    from corral.store.library import Library
    from corral.store.prune import prune as prune_library

    pruned = prune_library(Library.open(), dry_run=dry_run)
    if as_json:
        paths = [str(path) for path in pruned.paths]
        click.echo(json.dumps({"dry_run": dry_run, "paths": paths, "bytes": pruned.bytes}, indent=2))
        return
    for each in pruned.paths:
        click.echo(_printable(str(each)))
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(pruned.paths)} {verb}, {pruned.bytes / 1e6:,.1f} MB", err=True)


@contextlib.contextmanager
def _progress() -> Iterator[OnStatus]:
    """One bar at a time for a person, nothing for a pipe."""
    if not is_terminal(sys.stderr):
        yield lambda _status: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("")
        yield lambda status: bars.update(
            task, description=status.status, total=status.total, completed=status.completed
        )


def _printable(text: str) -> str:
    """A path without what steers a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
