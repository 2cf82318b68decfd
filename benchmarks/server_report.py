"""A comparison of servers as a Markdown page."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.machine import MAX_FOREIGN
from benchmarks.server_process import CORRAL
from benchmarks.server_run import Outcome, ServerRun
from benchmarks.spread import FEW_REPEATS, MAX_SPREAD, ratio, with_range
from benchmarks.workloads import Workload

LEGEND = (
    "Over HTTP on the loopback interface, streamed, greedy, no early stop; all clients of a workload start at once. "
    "Medians of the repeats, in brackets the lowest and the highest "
    f"(n: repeats, where fewer than {FEW_REPEATS}). First text: the first chunk with text, from the moment that the "
    "request was due; gaps: between chunks with text; percentiles over all clients of a repeat. `~`: the repeats "
    f"scatter by more than {MAX_SPREAD:.0%} of the median. Answers without exactly the tokens asked for are errors "
    "and do not count. Ratios: Corral's to the server's; above 1 is better for rates, below 1 for seconds."
)
COLUMNS: dict[str, tuple[Callable[[Outcome], float | None], int]] = {
    "output tokens/s": (lambda outcome: outcome.output_rate, 1),
    "all tokens/s": (lambda outcome: outcome.total_rate, 1),
    "first text p50, s": (lambda outcome: outcome.first_p50, 2),
    "p95": (lambda outcome: outcome.first_p95, 2),
    "gap p50, ms": (lambda outcome: None if outcome.gap_p50 is None else 1000 * outcome.gap_p50, 0),
    "p95, ms": (lambda outcome: None if outcome.gap_p95 is None else 1000 * outcome.gap_p95, 0),
    "RSS after, GB": (lambda outcome: outcome.resident_bytes / 1e9, 2),
}


def markdown(run: ServerRun) -> str:
    """The whole page."""
    parts = [f"# {run.model}: Corral beside other servers, {run.date}", LEGEND]
    foreign = [outcome.foreign for turn in run.turns for outcome in turn.outcomes.values()]
    if foreign and statistics.median(foreign) > MAX_FOREIGN:
        parts.insert(1, "**The machine was busy with other work: these figures compare nothing.**")
    parts += [section for workload in run.workloads for section in (_heading(workload), _table(run, workload))]
    parts += [
        "## Start",
        "Files in the page cache. Seconds from the start of the process.",
        _starts(run),
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in run.card.items()),
        "\n".join(f"- {line}" for line in _conditions(run, foreign)),
        "## Commands",
        "In each repeat one after the other, each in a fresh process:",
        "\n".join(f"    {command}" for command in run.commands.values()),
    ]
    if run.failures:
        parts += ["## Not run", "\n".join(f"- {name}: {why}" for name, why in run.failures.items())]
    return "\n\n".join(parts) + "\n"


def _heading(workload: Workload) -> str:
    asked = f'each says "{workload.text}"' if workload.text else f"a text of {workload.prompt} tokens of their own"
    system = f", one system prompt of {workload.system} tokens for all" if workload.system else ""
    return f"## {workload.name}\n\n{workload.clients} at once; {asked}{system}; {workload.answer} tokens each."


def _table(run: ServerRun, workload: Workload) -> str:
    header = [
        "server",
        *COLUMNS,
        "errors",
        "ratio of output tokens/s",
        "of first text p50",
    ]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for server in (*run.versions, *(name for name in run.failures if name not in run.versions)):
        if not run.of(server, workload.name, lambda outcome: outcome.seconds):
            lines.append(f"| {server} | not run" + " | -" * (len(header) - 2) + " |")
            continue
        cells = [_cell(run, server, workload, what, digits) for what, digits in COLUMNS.values()]
        errors = sum(
            sum(turn.outcomes[workload.name].errors.values())
            for turn in run.turns
            if turn.server == server and workload.name in turn.outcomes
        )
        ratios = [
            _ratio(run, server, workload, what)
            for what in (lambda outcome: outcome.output_rate, lambda outcome: outcome.first_p50)
        ]
        lines.append(f"| {' | '.join([server, *cells, str(errors), *ratios])} |")
    return "\n".join(lines)


def _cell(run: ServerRun, server: str, workload: Workload, what: Callable[[Outcome], float | None], digits: int) -> str:
    values = list(run.of(server, workload.name, what).values())
    return with_range(values, digits) if values else "-"


def _ratio(run: ServerRun, server: str, workload: Workload, what: Callable[[Outcome], float | None]) -> str:
    own, rival = run.of(CORRAL, workload.name, what), run.of(server, workload.name, what)
    if server == CORRAL or not own or not rival or not all(rival.values()):
        return "-"
    return ratio(own, rival)


def _starts(run: ServerRun) -> str:
    lines = ["| server | ready, s | first text, s |", "|---" * 3 + "|"]
    for server in run.versions:
        turns = [turn for turn in run.turns if turn.server == server]
        ready = [turn.ready_s for turn in turns if turn.ready_s is not None]
        first = [turn.first_token_s for turn in turns if turn.first_token_s is not None]
        cells = (with_range(values, 2) if values else "not run" for values in (ready, first))
        lines.append(f"| {server} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _conditions(run: ServerRun, foreign: list[float]) -> list[str]:
    lines = [f"{server}: {version}" for server, version in run.versions.items()]
    for server, wanted in run.repeats.items():
        lines.append(f"{server}: {sum(turn.server == server for turn in run.turns)} of {wanted} starts")
    if foreign:
        lines.append(f"CPU taken by others: median {statistics.median(foreign):.1%}, at most {max(foreign):.1%}")
    for workload in run.workloads:
        tokens = {
            server: round(statistics.median(found.values()) / workload.clients)
            for server in run.versions
            if (found := run.of(server, workload.name, lambda outcome: float(outcome.prompt_tokens)))
        }
        each = ", ".join(f"{server} {number}" for server, number in tokens.items())
        lines.append(f"prompt tokens of a client, template included, {workload.name}: {each or 'none'}")
    kinds = {error for turn in run.turns for outcome in turn.outcomes.values() for error in outcome.errors}
    return [*lines, *(f"error: {error}" for error in sorted(kinds))]
