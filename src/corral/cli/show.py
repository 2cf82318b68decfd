"""`corral show`: what a model is."""

from __future__ import annotations

import json

import click

from corral.cli import options
from corral.cli.options import option

_PARTS = ("license", "modelfile", "parameters", "system", "template")


@click.command("show", short_help="Tell what a model is.")
@options.model
@option("--license", is_flag=True, help="Print only the license.")
@option("--modelfile", is_flag=True, help="Print only the Modelfile; `corral create` takes it.")
@option("--parameters", is_flag=True, help="Print only the parameters.")
@option("--system", is_flag=True, help="Print only the system message.")
@option("--template", is_flag=True, help="Print only the chat template.")
@option("-v", "--verbose", is_flag=True, help="Print all metadata and tensors too.")
@option("--json", "as_json", is_flag=True, help="Print JSON, with the fields of the server's /api/show.")
def show(model: str, *, verbose: bool, as_json: bool, **wanted: bool) -> None:
    """Tell what a model is: its family and size, what it can do, its parameters, system message and license."""
    parts = [part for part in _PARTS if wanted[part]]
    if len(parts) + as_json > 1 or (parts and verbose):
        raise click.UsageError(
            "only one of --license, --modelfile, --parameters, --system, --template and --json can be specified"
        )
    from corral.cli.backend import open_backend

    card = open_backend().card(model, verbose=verbose)
    if parts:
        click.echo(str(getattr(card, parts[0])).rstrip("\n"))
    elif as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(card), indent=2, ensure_ascii=False))
    else:
        from corral.cli.card import describe

        click.echo(describe(card, verbose=verbose))
