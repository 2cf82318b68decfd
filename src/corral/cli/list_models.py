"""`corral list`: the models that are here."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from corral.cli import human
from corral.cli.options import option


@click.command("list", short_help="List the models that are here.")
@click.argument("prefix", required=False)
@option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def list_models(prefix: str | None, *, as_json: bool) -> None:
    """List the models that are here, the newest first; with PREFIX, those whose names begin so.

    Here is this machine's store, and Ollama's if there is one; or the server that CORRAL_HOST or OLLAMA_HOST names.
    """
    from corral.cli.backend import open_backend

    models = [model for model in open_backend().models() if model.name.lower().startswith((prefix or "").lower())]
    if as_json:
        shown = [
            asdict(model) | {"modified_at": model.modified_at and model.modified_at.isoformat()} for model in models
        ]
        click.echo(json.dumps(shown, indent=2))
        return
    rows = [("NAME", "ID", "SIZE", "MODIFIED")]
    rows += [
        (model.name, model.digest[:12], human.size(model.size), human.moment(model.modified_at)) for model in models
    ]
    click.echo(human.table(rows))
