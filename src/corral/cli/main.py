"""The `corral` command: its verbs, its exit codes, its way of saying what went wrong.

Data goes to stdout, all else to stderr. Exit codes: 0 done, 1 an error that is said in one line, 2 wrong usage,
130 interrupted. Nothing heavy is imported before a verb runs, so that --help answers at once.
"""

from __future__ import annotations

import sys

import click

from corral.cli import cache, doctor, plan, run, serve
from corral.config import without_blas_threads
from corral.errors import CorralError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def _show_version(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if is_wanted:
        from corral import __version__

        click.echo(f"corral {__version__}")
        context.exit()


@click.group("corral", no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", "-v", is_flag=True, callback=_show_version, is_eager=True, expose_value=False,
    help="Print the version.",
)  # fmt: skip
def app() -> None:
    """Run large language models on the machine you have: one line to a chat, one line to a server."""


app.add_command(run.run)
app.add_command(serve.serve)
app.add_command(plan.plan)
app.add_command(cache.cache)
app.add_command(doctor.doctor)


def main() -> None:
    """Entry point: every error raised on purpose becomes one line on stderr."""
    without_blas_threads()
    try:
        sys.exit(app.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CorralError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
