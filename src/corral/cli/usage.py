"""`corral usage`: what keys have used, read from the database; works with and without a running server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from corral.cli import human
from corral.cli.keys import database_url, open_database
from corral.cli.options import POSITIVE, option
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from corral.server.usage.store import Line, Question

_NO_KEY, _NO_MODEL = "(no key)", "(none)"


@click.command("usage", short_help="Show what API keys have used.")
@option("--days", type=POSITIVE, default=30, metavar="N", help="How many UTC days, this one included.")
@option("--key", "keys", multiple=True, metavar="KEY", help="Only of this key, an id or a name; may be given again.")
@option("--model", "models", multiple=True, metavar="MODEL", help="Only of this model; may be given again.")
@option(
    "--by", multiple=True, type=click.Choice(("day", "key", "model")), default=("key",), show_default="key",
    help="What each line is of; may be given again.",
)  # fmt: skip
@option("--json", "as_json", is_flag=True, help="Print JSON, times in seconds.")
@option("--csv", "as_csv", is_flag=True, help="Print CSV, times in seconds.")
@database_url
def usage(
    *,
    days: int,
    keys: tuple[str, ...],
    models: tuple[str, ...],
    by: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    database_url: str | None,
) -> None:
    """Show requests, tokens and times of the API keys of a database's servers, which write them every few seconds."""
    from corral.server.usage.report import csv_of, payload_of, question_of
    from corral.server.usage.store import UsageStore

    if as_json and as_csv:
        raise click.UsageError("give --json or --csv, not both")
    try:
        question = question_of(time.time(), days, by, keys, models)
    except InvalidRequest as error:
        raise click.UsageError(error.message) from None
    with open_database(database_url) as database:
        lines = UsageStore(database).read(question) if database.is_there else []
    if as_json:
        click.echo(json.dumps(payload_of(question, lines), indent=2))
    elif as_csv:
        click.echo(csv_of(question, lines), nl=False)
    else:
        click.echo(human.table([_head(question), *(_row(question, line) for line in lines)]))


def _head(question: Question) -> list[str]:
    figures = ["REQUESTS", "ERRORS", "REFUSED", "PROMPT", "CACHED", "ANSWER", "LATENCY", "MAX", "FIRST TOKEN", "MAX"]
    return [*(name.upper() for name in question.by), *figures]


def _row(question: Question, line: Line) -> list[str]:
    totals = line.totals
    of = {
        "day": line.day or "",
        "key": line.key_name or line.key_id or _NO_KEY,
        "model": line.model or _NO_MODEL,
    }
    counts = (totals.requests, totals.errors, totals.refusals)
    tokens = (totals.prompt_tokens, totals.cached_tokens, totals.completion_tokens)
    return [
        *(of[name] for name in question.by),
        *(f"{count:,}" for count in (*counts, *tokens)),
        *(_mean(totals.latency_s, totals.requests), _seconds(totals.latency_max_s, totals.requests)),
        *(_mean(totals.ttft_s, totals.answered), _seconds(totals.ttft_max_s, totals.answered)),
    ]


def _mean(total_s: float, count: int) -> str:
    return _seconds(total_s / count, count) if count else "-"


def _seconds(seconds: float, count: int) -> str:
    return f"{seconds:.2f} s" if count else "-"
