"""The `corral` command: its verbs, its exit codes, its way of saying what went wrong.

Data goes to stdout, all else to stderr. Exit codes: 0 done, 1 an error that is said in one line, 2 wrong usage,
130 interrupted. Nothing heavy is imported before a verb runs, so that --help answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from corral.cli import cache, plan, run, serve
from corral.config import without_blas_threads
from corral.errors import CorralError

app = typer.Typer(
    name="corral",
    help="Run large language models on the machine you have: one line to a chat, one line to a server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("serve")(serve.serve)
app.command("plan")(plan.plan)
app.add_typer(cache.app, name="cache")


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from corral import __version__

        typer.echo(f"corral {__version__}")
        raise typer.Exit


@app.callback()
def corral(
    version: Annotated[
        bool, typer.Option("--version", "-v", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run large language models on the machine you have: one line to a chat, one line to a server."""


def main() -> None:
    """Entry point: every error raised on purpose becomes one line on stderr."""
    without_blas_threads()
    try:
        app()
    except CorralError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
