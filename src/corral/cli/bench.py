"""`corral bench`: how fast a server answers, whichever it is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.options import POSITIVE, option
from corral.errors import CorralError, InvalidConfig

if TYPE_CHECKING:
    from corral.cli.bench_run import Asked

EXIT_INTERRUPTED = 130


def _positive(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise click.BadParameter(f"{value:g} is not above 0", param=parameter)
    return value


@click.command("bench", short_help="Measure how fast a server answers.")
@click.argument("url")
@option("--model", metavar="NAME", help="Model to ask; by default the first that /v1/models lists.")
@option(
    "--concurrency", "--max-concurrency", type=POSITIVE, metavar="N",
    help="Clients, each of which asks again when it is answered; 1 by default. With --request-rate, the most requests "
    "in flight; others wait, and their waiting is in the times.",
)  # fmt: skip
@option(
    "--request-rate", type=float, callback=_positive, metavar="RATE",
    help="Requests per second as they come (Poisson), whatever becomes of those before; inf sends all at once.",
)  # fmt: skip
@option(
    "--burstiness", type=float, default=1.0, callback=_positive, metavar="SHAPE",
    help="Of the arrivals: 1 is Poisson, less comes in bursts, more is more even.",
)  # fmt: skip
@option("--num-prompts", type=POSITIVE, default=32, metavar="N", help="Requests to measure.")
@option("--input-len", "--random-input-len", type=POSITIVE, default=128, metavar="TOKENS", help="Length of a prompt.")
@option("--output-len", "--random-output-len", type=POSITIVE, default=64, metavar="TOKENS", help="Most of an answer.")
@option(
    "--warmup", "--num-warmups", type=click.IntRange(min=0), default=1, metavar="N",
    help="Requests before the measured ones.",
)  # fmt: skip
@option("--seed", type=int, default=0, metavar="N", help="Of prompts and arrivals; another seed gives other prompts.")
@option("--endpoint", type=click.Choice(["chat", "completions"]), default="chat", help="What is asked.")
@option("--no-stream", is_flag=True, help="Ask for whole answers; then there is no first token to measure.")
@option(
    "--ignore-eos", is_flag=True,
    help="Ask the server to write on to --output-len, by the field ignore_eos of Corral, vLLM and llama.cpp.",
)  # fmt: skip
@option("--slo", metavar="LIMITS", help="Count requests within limits, for instance ttft=500ms,tpot=50ms,e2e=10s.")
@option(
    "--goodput", multiple=True, metavar="NAME:MS",
    help="The same in vLLM's words and milliseconds, for instance ttft:500; can be given several times.",
)  # fmt: skip
@option("--time-limit", type=float, callback=_positive, metavar="SECONDS", help="Cut off what is not answered by then.")
@option(
    "--timeout", type=float, default=600.0, callback=_positive, metavar="SECONDS",
    help="How long the server may send nothing.",
)  # fmt: skip
@option("--api-key", envvar="OPENAI_API_KEY", metavar="KEY", help="Sent as a bearer token.")
@option("--header", multiple=True, metavar="NAME:VALUE", help="Sent with every request; can be given several times.")
@option(
    "--tokenizer", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="GGUF file of the model, to count tokens by its own tokenizer; else the server's usage counts.",
)  # fmt: skip
@option(
    "--percentile-metrics", default="ttft,tpot,itl,e2el", metavar="NAMES",
    help="Times to tell, with commas between.",
)  # fmt: skip
@option("--metric-percentiles", default="50,95,99", metavar="NUMBERS", help="Percentiles of them.")
@option(
    "--save-result", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE",
    help="Write JSON there, in the keys of `vllm bench serve`.",
)  # fmt: skip
@option("--save-detailed", is_flag=True, help="Put the times and texts of every request in it too.")
@option("--json", "as_json", is_flag=True, help="Print that JSON in place of the table.")
def bench(url: str, *, save_result: Path | None, save_detailed: bool, as_json: bool, **flags: Any) -> None:
    """Measure how fast the server at URL answers in OpenAI's protocol.

    Times count from when a request was due, and the first token is the first text: a chunk with a role alone is none.
    Ctrl-C ends the run and prints what was measured so far.
    """
    import asyncio

    from corral.cli import bench_report, bench_run

    asked = _asked(url, flags)
    run = bench_run.BenchRun(asked)
    try:
        asyncio.run(run.run())
        is_interrupted = False
    except KeyboardInterrupt:
        is_interrupted = True
    if run.load is None:
        raise click.Abort
    result = bench_report.result(run, is_detailed=save_detailed)
    if save_result is not None:
        try:
            save_result.write_text(json.dumps(result, indent=1) + "\n")
        except OSError as error:
            raise CorralError(f"cannot write {save_result}: {error.strerror}") from error
    click.echo(json.dumps(result, indent=1) if as_json else bench_report.table(run, is_interrupted=is_interrupted))
    for line in bench_report.remarks(run):
        click.echo(line, err=True)
    if is_interrupted:
        raise SystemExit(EXIT_INTERRUPTED)
    if not run.summary.completed:
        raise CorralError("no request was answered")


def _asked(url: str, flags: dict[str, Any]) -> Asked:
    """The flags, read and checked.

    Raises:
        InvalidConfig: one that cannot be obeyed.
    """
    from corral.cli.bench_run import Asked
    from corral.compare.exchange import check_header, parse_origin
    from corral.compare.slo import parse_goodput, parse_slo
    from corral.compare.statistics import OF_STREAMS, TIMES

    if flags["slo"] and flags["goodput"]:
        raise InvalidConfig("--slo and --goodput say the same in two ways; give one of them")
    limits = parse_slo(flags["slo"]) if flags["slo"] else parse_goodput(flags["goodput"])
    headers = {}
    if flags["api_key"]:
        headers["Authorization"] = f"Bearer {flags['api_key'].strip()}"
    for text in flags["header"]:
        name, colon, value = text.partition(":")
        if not colon:
            raise InvalidConfig(f"--header is {text!r}; write NAME:VALUE")
        headers[name.strip()] = value.strip()
    for name, value in headers.items():
        check_header(name, value)
    metrics = [name.strip() for name in flags["percentile_metrics"].split(",") if name.strip()]
    if unknown := [name for name in metrics if name not in TIMES]:
        raise InvalidConfig(f"--percentile-metrics has {unknown[0]!r}; there are {', '.join(TIMES)}")
    is_streamed = not flags["no_stream"]
    if not is_streamed:
        metrics = [name for name in metrics if name not in OF_STREAMS]
        if refused := [name for name in ("ttft", "tpot") if name in limits]:
            raise InvalidConfig(f"--no-stream leaves no {refused[0]} to hold against a limit")
    return Asked(
        origin=parse_origin(url),
        model=flags["model"],
        concurrency=flags["concurrency"],
        rate=flags["request_rate"],
        burstiness=flags["burstiness"],
        num_prompts=flags["num_prompts"],
        input_len=flags["input_len"],
        output_len=flags["output_len"],
        warmup=flags["warmup"],
        seed=flags["seed"],
        endpoint=flags["endpoint"],
        is_streamed=is_streamed,
        ignore_eos=flags["ignore_eos"],
        limits=limits,
        time_limit_s=flags["time_limit"],
        patience_s=flags["timeout"],
        headers=headers,
        tokenizer=flags["tokenizer"],
        metrics=metrics,
        percentiles=_percentiles(flags["metric_percentiles"]),
    )


def _percentiles(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [math.nan]
    if not all(0 <= value <= 100 for value in found):
        raise InvalidConfig(f"--metric-percentiles is {text!r}; it must be numbers from 0 to 100 with commas between")
    return found
