"""A cold-start run as a Markdown page."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks.machine import MAX_FOREIGN

STAGES = ("ready", "first token", "exit")


@dataclass
class Run:
    """Everything that was measured; the JSON file is this object.

    Args:
        seconds: contender -> stage -> seconds from process start, of each repeat.
        foreign: share of all CPUs that other processes took, in each turn that counts; num_rejected: turns that were
            taken again because of it.
        failures: what could not be run, and why.
    """

    model: str
    date: str
    card: dict[str, str]
    commands: dict[str, str]
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    foreign: list[float] = field(default_factory=list)
    num_rejected: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def markdown(run: Run) -> str:
    """The whole page."""
    parts = [
        f"# {run.model}: from process start to the first token, {run.date}",
        "Seconds since the process was started; median of the repeats, in brackets the lowest and the highest. Files "
        "are in the page cache for all. `ready`: /health says 200. `first token`: its text has come, on stdout or over "
        "HTTP.",
        _table(run),
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in run.card.items()),
        _conditions(run),
        "## Commands",
        "\n".join(f"- {name}: `{command}`" for name, command in run.commands.items()),
    ]
    if run.foreign and statistics.median(run.foreign) > MAX_FOREIGN:
        parts.insert(1, "**The machine was busy with other work: these figures compare nothing.**")
    if run.failures:
        parts += ["## Not run", "\n".join(f"- {name}: {why}" for name, why in run.failures.items())]
    return "\n\n".join(parts) + "\n"


def _table(run: Run) -> str:
    lines = ["| started | " + " | ".join(STAGES) + " |", "|---" * (len(STAGES) + 1) + "|"]
    for name, stages in run.seconds.items():
        cells = [_with_range(stages[stage]) if stage in stages else "" for stage in STAGES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _with_range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _conditions(run: Run) -> str:
    if not run.foreign:
        return "- no turn was counted"
    return (
        f"- CPU taken by others during the turns: median {statistics.median(run.foreign):.1%}, at most "
        f"{max(run.foreign):.1%}; turns taken again because of more than {MAX_FOREIGN:.0%}: {run.num_rejected}"
    )
