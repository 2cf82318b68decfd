"""`corral cp` and `corral rm`: a model's names."""

from __future__ import annotations

import contextlib

import click

from corral.cli import options
from corral.errors import CorralError


@click.command("cp", short_help="Give a model another name.")
@options.model_name("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
def copy(source: str, target: str) -> None:
    """Give a model another name; both share its files."""
    from corral.cli.backend import open_backend

    open_backend().copy(source, target)
    click.echo(f"copied '{source}' to '{target}'")


@click.command("rm", short_help="Remove models.")
@options.model_name("models", metavar="MODEL...", nargs=-1, required=True)
def remove(models: tuple[str, ...]) -> None:
    """Remove models, and the files that no other model needs."""
    from corral.cli.backend import open_backend
    from corral.cli.remote_backend import RemoteBackend

    backend = open_backend()
    for model in models:
        if isinstance(backend, RemoteBackend):
            with contextlib.suppress(CorralError):  # it need not be loaded; whether it exists, delete tells
                backend.unload(model)
        backend.delete(model)
        click.echo(f"deleted '{model}'")
