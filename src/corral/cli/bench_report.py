"""What `corral bench` prints and saves."""

from __future__ import annotations

import collections
import statistics
from datetime import UTC, datetime
from typing import Any

from corral.cli import human
from corral.cli.bench_run import BenchRun
from corral.compare.load import INTERRUPTED
from corral.compare.report import units
from corral.compare.slo import limits_text
from corral.compare.statistics import TIMES, percentile, vllm_result

_MAX_FAULTS = 5  # kinds that are told


def table(run: BenchRun, *, is_interrupted: bool) -> str:
    """For people."""
    asked, found = run.asked, run.summary
    plan = asked.plan
    how = {
        "closed": f"{plan.concurrency} at a time",
        "open": f"{plan.rate:g} per second (Poisson)" if asked.burstiness == 1 else f"{plan.rate:g} per second",
        "burst": "all at once",
    }[plan.kind]
    cut = f", {run.num_interrupted} cut off by the interruption" if is_interrupted else ""
    by = "the server's usage" if run.is_by_usage else "the model's tokenizer"
    rows = [
        ("Server", str(asked.origin)),
        ("Model", run.model),
        ("Load", f"{found.num_requests} requests, {how}{'; interrupted' if is_interrupted else ''}"),
        ("Answered", f"{found.completed}, {found.failed} failed{cut}"),
        ("Duration", units.seconds(found.duration_s)),
        ("Prompt tokens", _tokens(found.input_tokens, found.completed)),
        ("Answer tokens", f"{_tokens(found.output_tokens, found.completed)}, by {by}"),
        ("Requests", f"{units.number(found.per_second(found.completed))} per second"),
        ("Output", f"{units.number(found.per_second(found.output_tokens))} tokens per second"),
    ]
    if found.kept is not None:
        share = units.share(found.kept / found.num_requests if found.num_requests else None)
        good = units.number(found.per_second(found.kept))
        rows.append(("Goodput", f"{good} requests per second, {share} within {limits_text(asked.limits)}"))
    rows.append(("Client", f"{found.client_cpu:.1%} of a core"))
    heads = ["", "MEAN", *(f"P{percent:g}" for percent in asked.percentiles)]
    times = [heads]
    for name in asked.metrics:
        values = found.times.get(name) or ()
        if values:
            shown = [statistics.fmean(values), *(percentile(values, percent) for percent in asked.percentiles)]
            times.append([TIMES[name], *map(units.seconds, shown)])
    return f"{human.table(rows, gap=2)}\n\n{human.table(times, gap=3)}" if len(times) > 1 else human.table(rows, gap=2)


def remarks(run: BenchRun) -> list[str]:
    """What a reader has to know, a line each: doubts, then the faults by how often they came."""
    asked, found = run.asked, run.summary
    lines = [f"Warning: {text}" for text in found.warnings()]
    good = [answer for answer in run.answers if answer.is_good]
    if run.is_by_usage and any(answer.completion_tokens is None for answer in good):
        lines.append(
            "Warning: the server tells no usage for some answers, whose tokens count as none; count them by --tokenizer"
        )
    short = sum((answer.completion_tokens or asked.output_len) < asked.output_len for answer in good)
    if short:
        lines.append(
            f"Note: {short} of {len(good)} answers ended before {asked.output_len} tokens, so that runs differ in "
            "work; --ignore-eos asks the server to write on"
        )
    faults = collections.Counter(answer.error for answer in run.answers if answer.error not in ("", INTERRUPTED))
    lines += [
        human.printable(f"Failed {count}\N{MULTIPLICATION SIGN}: {text}")
        for text, count in faults.most_common(_MAX_FAULTS)
    ]
    if (rest := len(faults) - _MAX_FAULTS) > 0:
        lines.append(f"and {rest} more kinds of failure")
    return lines


def result(run: BenchRun, *, is_detailed: bool) -> dict[str, Any]:
    """In the keys of `vllm bench serve --save-result`, and a few of our own behind them."""
    asked, found = run.asked, run.summary
    backend = "openai-chat" if asked.endpoint == "chat" else "openai"
    rate = asked.rate if asked.plan.kind == "open" else "inf"
    out: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        "backend": backend,
        "endpoint_type": backend,
        "label": None,
        "model_id": run.model,
        "tokenizer_id": str(asked.tokenizer.name) if asked.tokenizer else None,
        "num_prompts": found.num_requests,
        "request_rate": rate,
        "burstiness": asked.burstiness,
        "max_concurrency": asked.concurrency or (1 if asked.plan.kind == "closed" else None),
        **vllm_result(found, asked.metrics, asked.percentiles),
        "tokens_by": "usage" if run.is_by_usage else "tokenizer",
        "is_streamed": asked.is_streamed,
        "client_cpu": found.client_cpu,
        "client_delay_s": found.client_delay_s,
        "warnings": found.warnings(),
    }
    if is_detailed:
        answers = run.answers
        out |= {
            "input_lens": [answer.prompt_tokens for answer in answers],
            "output_lens": [answer.completion_tokens for answer in answers],
            "ttfts": [answer.first_token_s for answer in answers],
            "itls": [answer.gaps_s for answer in answers],
            "e2els": [answer.latency_s for answer in answers],
            "start_times": [answer.scheduled for answer in answers],
            "generated_texts": [answer.text for answer in answers],
            "errors": [answer.error for answer in answers],
        }
    return out


def _tokens(total: int | None, completed: int) -> str:
    if total is None:
        return "unknown: the server does not tell"
    return f"{total:,}, {units.number(total / completed)} each" if completed else f"{total:,}"
