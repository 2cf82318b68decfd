"""From the flags of `corral compare` to a run: model, engines, workloads, and what is shown meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from corral import __version__
from corral.cli.progress import show_status
from corral.cli.terminal import is_dumb, is_terminal, warn
from corral.compare.engines.engine import Setup
from corral.compare.engines.registry import engines as make_engines
from corral.compare.engines.simulated import Simulated
from corral.compare.engines.typed import typed
from corral.compare.machine_card import machine_card
from corral.compare.process import unwind_on_sigterm
from corral.compare.profiles import STORY_CONTEXT, Make, profile
from corral.compare.report.files import HTML_NAME, JSON_NAME, write_report
from corral.compare.report.json_file import read_comparison, write_comparison
from corral.compare.results import Comparison
from corral.compare.run import Order, Run, card_of
from corral.compare.slo import parse_slo
from corral.compare.turn import Entry, Progress
from corral.compare.workload import Workload
from corral.config import cache_home
from corral.errors import InvalidConfig

LOGS_NAME = "logs"
NAME = "model"  # what clients call the model, with every engine
USUAL_CONTEXT = 4096
EXIT_FAILED = 1  # no engine could be measured
EXIT_INTERRUPTED = 130
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags; see `corral compare --help`."""

    engines: tuple[str, ...]
    model: str
    profile: str
    attached: Mapping[str, str]
    paths: Mapping[str, Path]
    flags: Mapping[str, tuple[str, ...]]
    repeats: int
    slo: str | None
    context: int | None
    slots: int | None
    threads: int | None
    max_tokens: int | None
    limit_s: float | None
    seed: int
    output: Path
    resume: bool
    dry_run: bool
    probes: bool
    command: str


def run_comparison(asked: Asked) -> int:
    """The exit code. Raises CorralError for what cannot be asked."""
    slo = parse_slo(asked.slo) if asked.slo else {}
    engines = make_engines(asked.engines, asked.paths, asked.attached, warn, asked.dry_run)
    names = [engine.name for engine in engines]
    if strange := [name for name in asked.flags if name not in names]:
        raise InvalidConfig(
            f"--flags are given for {strange[0]!r}, which is not compared; there are {', '.join(names)}"
        )
    model = _model(asked.model)
    warn(f"reading {model.name}")
    digest, (encode, template_tokens) = _digest(model), _words(model)
    make = Make(
        lambda text: len(encode(text)), seed=asked.seed, template_tokens=template_tokens, max_tokens=asked.max_tokens
    )
    workloads = profile(asked.profile, make)
    setup = Setup(
        model=model,
        digest=digest,
        name=NAME,
        context=asked.context or (STORY_CONTEXT if asked.profile == "article" else USUAL_CONTEXT),
        slots=asked.slots or max(card_of(workload).concurrency for workload in workloads),
        threads=asked.threads or len(os.sched_getaffinity(0)),
    )
    folder = cache_home() / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    order = Order(
        engines=engines,
        setups={name: replace(setup, flags=asked.flags.get(name, ())) for name in names},
        workloads=workloads,
        repeats=asked.repeats,
        make=make,
        encode=encode,
        folder=folder,
        logs=asked.output / LOGS_NAME,
        slo=slo,
        limit_s=asked.limit_s,
    )
    comparison = _comparison(asked, setup, slo)
    comparison.is_simulated = any(isinstance(engine, Simulated) for engine in engines)
    if asked.dry_run:
        return asyncio.run(_show(order, comparison))
    return _measure(asked, order, comparison)


def _measure(asked: Asked, order: Order, comparison: Comparison) -> int:
    asked.output.mkdir(parents=True, exist_ok=True)
    unwind_on_sigterm()
    code = 0
    with _progress() as (say, progress):
        run = Run(order, comparison, lambda: write_comparison(comparison, asked.output / JSON_NAME), say, progress)

        async def all_of_it() -> None:
            if await run.find():
                await run.turns()
                if asked.probes:
                    await run.probes()

        try:
            asyncio.run(all_of_it())
        except KeyboardInterrupt:
            warn("interrupted; the report is of what was measured so far, and --resume goes on from there")
            code = EXIT_INTERRUPTED
    write_report(comparison, asked.output)
    click.echo(asked.output / HTML_NAME)
    for fault in comparison.faults:
        warn(fault)
    return code or (0 if comparison.starts else EXIT_FAILED)


def _comparison(asked: Asked, setup: Setup, slo: dict[str, float]) -> Comparison:
    """A new one, or the one that is to be gone on with.

    Raises:
        InvalidConfig: what is in the folder was asked otherwise.
    """
    made = Comparison(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        corral_version=__version__,
        command=asked.command,
        profile=asked.profile,
        model=setup.model.name,
        digest=setup.digest,
        model_bytes=setup.model.stat().st_size,
        asked={
            "context": setup.context,
            "slots": setup.slots,
            "threads": setup.threads,
            "repeats": asked.repeats,
            "sampling": "greedy (temperature 0)",
            **({} if asked.max_tokens is None else {"max_tokens": asked.max_tokens}),
        },
        machine=machine_card(setup.threads),
        seed=asked.seed,
        slo=slo,
    )
    found = asked.output / JSON_NAME
    if not asked.resume:
        if found.exists() and not asked.dry_run:
            raise InvalidConfig(f"{found} is there already; go on with it by --resume, or give another folder by -o")
        return made
    if not found.exists():
        raise InvalidConfig(f"{found} is not there, so there is nothing to go on with; leave out --resume")
    before = read_comparison(found)
    for name in ("profile", "digest", "seed"):
        if getattr(before, name) != getattr(made, name):
            raise InvalidConfig(
                f"{found} was measured with {name} {getattr(before, name)!r}, and now it is {getattr(made, name)!r}; "
                "--resume goes on with the same"
            )
    if changed := [key for key in made.asked if key != "repeats" and before.asked.get(key) != made.asked[key]]:
        raise InvalidConfig(
            f"{found} was measured with {changed[0]} {before.asked.get(changed[0])!r}, and now it is "
            f"{made.asked[changed[0]]!r}; --resume goes on with the same"
        )
    before.asked["repeats"] = max(asked.repeats, before.asked.get("repeats", 0))
    return before


async def _show(order: Order, comparison: Comparison) -> int:
    """What would be done, on stdout."""
    run = Run(order, comparison, lambda: None, warn)
    entries: list[Entry] = await run.find()
    for row in comparison.engines:
        click.echo(f"{row.name}: {row.version}" if not row.missing else f"{row.name}: not here: {row.missing}")
        for entry in entries:
            if entry.engine.name == row.name and entry.launch.argv:
                click.echo(f"  {typed(entry.launch.argv, entry.launch.environment)}")
    click.echo(f"{order.repeats} turns of each engine, of these workloads:")
    for workload in order.workloads:
        click.echo(f"  {workload.name}: {workload.title} ({_num_calls(workload)} requests)")
    return 0


def _num_calls(workload: Workload) -> int:
    return sum(len(calls) for calls in workload.calls(0))


def _model(name: str) -> Path:
    """The file; downloaded first if it is a model's name."""
    from corral.store import resolve

    with show_status() as on_status:
        return Path(resolve(name, on_status).path).resolve()


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_PART):
            found.update(part)
    return found.hexdigest()


def _words(path: Path) -> tuple[Callable[[str], list[int]], int]:
    """A text's tokens by the model's own tokenizer, no special ones; and how many its template puts around a text.

    Raises:
        CorralError: the file, its vocabulary or its template cannot be read.
    """
    from corral.model.gguf import open_gguf
    from corral.text.templates import template_for
    from corral.text.tokenizer import Tokenizer

    with open_gguf(path) as gguf:
        tokenizer = Tokenizer.from_metadata(gguf.metadata)
        source = gguf.metadata.get("tokenizer.chat_template")
        template = template_for(tokenizer, source if isinstance(source, str) else None)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special=False, parse_special=False))

    text = "Hello"
    rendered = template.render_chat([{"role": "user", "content": text}])
    return encode, len(tokenizer.encode_chat(rendered.text, rendered.guard)) - len(encode(text))


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Progress]]:
    """A line for each turn, and on a terminal a bar below them."""
    import sys

    if not is_terminal(sys.stderr) or is_dumb():
        yield warn, lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("")

        def progress(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total or None)

        yield bars.console.print, progress
