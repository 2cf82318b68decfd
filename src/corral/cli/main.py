"""The `corral` command: its verbs, its exit codes, its way of saying what went wrong.

Data goes to stdout, all else to stderr. Exit codes: 0 done, 1 an error that is said in one line, 2 wrong usage,
130 interrupted. Nothing heavy is imported before a verb runs, so that --help answers at once.
"""

from __future__ import annotations

import sys

import click

from corral.cli import (
    bench,
    cache,
    compare,
    completion,
    config,
    copy_remove,
    create,
    doctor,
    keys,
    list_models,
    plan,
    ps,
    pull,
    run,
    search,
    serve,
    show,
    stop,
    store,
    usage,
)
from corral.cli.config_file import file_value
from corral.cli.launch.verb import launch
from corral.config import without_blas_threads
from corral.errors import CorralError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
ALIASES = {"ls": "list", "start": "serve"}


def _show_version(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if is_wanted:
        from corral import __version__

        click.echo(f"corral {__version__}")
        context.exit()


class _App(click.Group):
    """Knows some verbs by a second name, which help does not list."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they are added: what is used most comes first


@click.group("corral", cls=_App, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", "-v", is_flag=True, callback=_show_version, is_eager=True, expose_value=False,
    help="Print the version.",
)  # fmt: skip
@click.pass_context
def app(context: click.Context) -> None:
    """Run large language models on the machine you have: one line to a chat, one line to a server."""
    of_file = {"database_url": lambda: file_value("database-url")}  # what a server uses, these look into
    context.default_map = {"usage": of_file, "keys": dict.fromkeys(keys.keys.commands, of_file)}
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for verb in (
    *(run.run, serve.serve, pull.pull, pull.push, create.create, show.show, list_models.list_models, search.search),
    *(ps.ps, stop.stop, copy_remove.copy, copy_remove.remove, launch, plan.plan, doctor.doctor),
    *(bench.bench, compare.compare),
    *(config.config, keys.keys, usage.usage, store.store, cache.cache, completion.completion),
):
    app.add_command(verb)


def main() -> None:
    """Entry point: every error raised on purpose becomes one line on stderr."""
    without_blas_threads()
    try:
        sys.exit(app.main(prog_name="corral", complete_var=completion.COMPLETE_VARIABLE, standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CorralError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
