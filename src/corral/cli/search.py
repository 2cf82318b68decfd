"""`corral search`: the models that have short names."""

from __future__ import annotations

import json

import click

from corral.cli import human
from corral.cli.options import option


@click.command("search", short_help="Look through the catalog.")
@click.argument("words", nargs=-1)
@option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def search(words: tuple[str, ...], *, as_json: bool) -> None:
    """Look through the catalog of models that short names stand for; every word must be found."""
    from corral.store.catalog import search as find_entries

    entries = find_entries(words)
    if as_json:
        shown = [
            {
                "name": entry.names[0],
                "names": list(entry.names),
                "parameters": entry.parameters,
                "quantization": entry.quantization,
                "size": entry.artifact.size_bytes,
                "family": entry.family,
                "license": entry.licence,
                "about": entry.about,
            }
            for entry in entries
        ]
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    if not entries:
        click.echo(f"nothing found for {' '.join(words)!r}; 'corral search' without words lists all", err=True)
        return
    rows = [("NAME", "PARAMETERS", "SIZE", "LICENSE", "ABOUT")]
    rows += [
        (entry.names[0], entry.parameters, human.size(entry.artifact.size_bytes), entry.licence, entry.about)
        for entry in entries
    ]
    click.echo(human.table(rows))
