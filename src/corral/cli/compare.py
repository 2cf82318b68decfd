"""`corral compare`: engines side by side on this machine; reports and differences of what was measured."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corral.cli.options import POSITIVE, option
from corral.cli.terminal import warn
from corral.errors import InvalidConfig

if TYPE_CHECKING:
    from corral.compare.results import Comparison

PROFILES = ("article", "quick", "full")
DEFAULT_REPEATS = 5  # fewer give no verdict
DEFAULT_OUTPUT = "comparison"


class _Compare(click.Group):
    """What is no verb of its own is the comparison itself: `corral compare corral llama.cpp --model FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["run", *args])


@click.group("compare", cls=_Compare, short_help="Compare engines on this machine, fairly.")
def compare() -> None:
    """Compare engines on this machine."""


def _pairs(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise click.BadParameter(f"{text!r} must be NAME=VALUE", context, parameter)
        found[name] = value
    return found


@compare.command("run")
@click.argument("engines", nargs=-1, metavar="[ENGINE]...")
@option("--model", "model", required=True, metavar="FILE", help="GGUF file, or the name of a model.")
@option("--profile", type=click.Choice(PROFILES), default="quick", help="Which workloads.")
@option("--attach", multiple=True, callback=_pairs, metavar="NAME=URL", help="A server that runs already; repeatable.")
@option(
    "--engine-path", multiple=True, callback=_pairs, metavar="NAME=PATH",
    help="Where an engine's program is, or an environment that has it; repeatable.",
)  # fmt: skip
@option("--flags", multiple=True, callback=_pairs, metavar="NAME=FLAGS", help="More flags of one engine; repeatable.")
@option("--repeat", type=POSITIVE, default=DEFAULT_REPEATS, help="Turns of each engine; fewer than 5 give no verdict.")
@option("--slo", metavar="ttft=500ms,tpot=50ms", help="Limits that a good request keeps.")
@option("--context", type=POSITIVE, help="Tokens of each request; by default 8192 for the article, 4096 else.")
@option("--slots", type=POSITIVE, help="Requests at once; by default as many as the workloads ask.")
@option("--threads", type=POSITIVE, help="By default as many as there are CPUs to use.")
@option("--max-tokens", type=POSITIVE, help="Answers are no longer, whatever the profile says.")
@option("--time-limit", type=POSITIVE, metavar="SECONDS", help="Of each workload in a turn; what is late has failed.")
@option("--seed", type=int, default=0, help="Of texts and arrivals.")
@option("-o", "--output", default=DEFAULT_OUTPUT, metavar="DIR", help="Folder of the report.")
@option("--resume", is_flag=True, help="Go on with the comparison in the folder; turns that were taken are kept.")
@option("--no-probes", is_flag=True, help="Measure speed alone: leave out security, production and conformance.")
@option("--dry-run", is_flag=True, help="Print what would be started and asked, and end.")
def run(
    engines: tuple[str, ...],
    *,
    model: str,
    profile: str,
    attach: dict[str, str],
    engine_path: dict[str, str],
    flags: dict[str, str],
    repeat: int,
    slo: str | None,
    context: int | None,
    slots: int | None,
    threads: int | None,
    max_tokens: int | None,
    time_limit: int | None,
    seed: int,
    output: str,
    resume: bool,
    no_probes: bool,
    dry_run: bool,
) -> None:
    """Start each ENGINE (corral, llama.cpp, vllm, ollama) in turn on the same file, ask all the same, and report.

    Engines take turns, one at a time, --repeat times. One that is not here is a row of the report that says why. The
    report (report.html, report.md, comparison.json and more) is in --output. ENGINE may be LABEL=ENGINE, to compare one
    with itself: `corral compare corral old=corral --engine-path old=/path/to/venv --model FILE`.

    `corral compare diff A B` compares two results and exits with 1 where something has become worse;
    `corral compare report DIR` draws the report of a result again.
    """
    from corral.cli.compare_run import Asked, run_comparison

    if not engines and not attach:
        raise click.UsageError(
            "name the engines: corral, llama.cpp, vllm, ollama; or attach what runs: --attach NAME=URL"
        )
    asked = Asked(
        engines=engines,
        model=model,
        profile=profile,
        attached=attach,
        paths={name: Path(path).expanduser() for name, path in engine_path.items()},
        flags={name: tuple(_split(text)) for name, text in flags.items()},
        repeats=repeat,
        slo=slo,
        context=context,
        slots=slots,
        threads=threads,
        max_tokens=max_tokens,
        limit_s=None if time_limit is None else float(time_limit),
        seed=seed,
        output=Path(output),
        resume=resume,
        dry_run=dry_run,
        probes=not no_probes,
        command=shlex.join(["corral", "compare", *_plain(sys.argv[2:])]),
    )
    raise click.exceptions.Exit(run_comparison(asked))


def _split(text: str) -> Sequence[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise click.UsageError(f"--flags {text!r}: {error}") from None


def _plain(arguments: Sequence[str]) -> list[str]:
    """Without this machine's folders."""
    return [_without_folder(argument) for argument in arguments]


def _without_folder(text: str) -> str:
    name, equals, value = text.partition("=")
    if equals and value.startswith("/"):
        return f"{name}={Path(value).name}"
    return Path(text).name if text.startswith("/") else text


@compare.command("diff", short_help="Say what is better and worse between two results.")
@click.argument("before", type=click.Path(exists=True, path_type=Path))
@click.argument("after", type=click.Path(exists=True, path_type=Path))
@option("--all", "is_whole", is_flag=True, help="Print what has not changed, too.")
def diff(before: Path, after: Path, *, is_whole: bool) -> None:
    """Compare the results BEFORE and AFTER (folders, or their comparison.json, also packed by gzip).

    Exits with 1 if a figure is worse beyond its interval, and with 2 if the two cannot be compared.
    """
    from corral.cli import human
    from corral.compare.report.diff import closing_line, diff_files, table_rows

    found = diff_files(_json_of(before), _json_of(after))
    for line in found.warnings:
        warn(line)
    rows = table_rows(found, is_whole=is_whole)
    if len(rows) > 1:
        click.echo(human.table([tuple(row) for row in rows]))
    click.echo(closing_line(found), err=bool(found.refusal))
    raise click.exceptions.Exit(found.exit_code)


@compare.command("report", short_help="Draw the report of a result again.")
@click.argument("result", type=click.Path(exists=True, path_type=Path))
@option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the report; by default that of the result.")
def report(result: Path, *, output: Path | None) -> None:
    """Draw the report of RESULT (a folder, or its comparison.json, also packed by gzip) again, as this version does."""
    from corral.compare.report.files import write_report
    from corral.compare.report.json_file import read_comparison

    source = _json_of(result)
    comparison: Comparison = read_comparison(source)
    for path in write_report(comparison, output or source.parent):
        click.echo(path)


def _json_of(path: Path) -> Path:
    """The result in a folder, or the file itself."""
    if not path.is_dir():
        return path
    names = ("comparison.json", "comparison.json.gz")
    found = next((path / name for name in names if (path / name).exists()), None)
    if found is None:
        raise InvalidConfig(f"{path} holds no comparison.json; give the folder that `corral compare -o` wrote")
    return found
