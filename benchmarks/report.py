"""A run as a Markdown page: table, machine card, commands, what could not be run."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.machine import MAX_FOREIGN, Peaks

if TYPE_CHECKING:
    from benchmarks.compare_llama_cpp import Run

MAX_SPREAD = 0.15  # a cell that scatters more than this is marked: read it with care


def markdown(run: Run) -> str:
    """The whole page."""
    parts = [
        f"# {run.model}: Corral beside llama.cpp, {run.date}",
        "Tokens per second, all streams of a cell together; median of the repeats, in brackets the lowest and the "
        "highest. Ratio: of the medians, in brackets the lowest and the highest of the repeats. llama.cpp: in each "
        f"cell the fastest of its flags. `~`: the repeats scatter by more than {MAX_SPREAD:.0%} of the median.",
        _table(run),
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in run.card.items()),
        "\n".join(f"- {line}" for line in _conditions(run)),
        "## Commands",
        "\n".join(f"    {command}" for command in run.commands),
        "Corral first, then llama.cpp with each set of flags, once in each repeat; flags shown: one of the sets.",
    ]
    if statistics.median(run.foreign) > MAX_FOREIGN:
        parts.insert(1, "**The machine was busy with other work: these figures compare nothing.**")
    if run.failures:
        parts += ["## Not run", "\n".join(f"- {name}: {why}" for name, why in run.failures.items())]
    return "\n\n".join(parts) + "\n"


def best_flags(run: Run, cell: str) -> str | None:
    """llama.cpp's flags with the highest median in the cell; None if it has no figure there."""
    medians = {flags: statistics.median(cells[cell]) for flags, cells in run.llama.items() if cells.get(cell)}
    return max(medians, key=lambda flags: medians[flags]) if medians else None


def _table(run: Run) -> str:
    lines = ["| cell | Corral | llama.cpp | its flags | ratio |", "|---|---|---|---|---|"]
    for cell, own in run.corral.items():
        flags = best_flags(run, cell)
        if flags is None:
            lines.append(f"| {cell} | {_with_range(own)} | not run | see below | - |")
            continue
        rival = run.llama[flags][cell]
        lines.append(f"| {cell} | {_with_range(own)} | {_with_range(rival)} | {flags} | {_ratio(own, rival)} |")
    return "\n".join(lines)


def _with_range(values: list[float]) -> str:
    median = statistics.median(values)
    mark = "~" if max(values) - min(values) > MAX_SPREAD * median else ""
    return f"{mark}{median:.1f} ({min(values):.1f}-{max(values):.1f})"


def _ratio(own: list[float], rival: list[float]) -> str:
    pairs = [mine / theirs for mine, theirs in zip(own, rival, strict=False)]
    return f"{statistics.median(own) / statistics.median(rival):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"


def _conditions(run: Run) -> list[str]:
    """Read bandwidth and peaks of the same run, and what Corral's single stream makes of them."""
    lines = [
        f"CPU taken by others during the turns: median {statistics.median(run.foreign):.1%}, at most "
        f"{max(run.foreign):.1%}; turns taken again because of more than {MAX_FOREIGN:.0%}: {run.num_rejected}",
        f"read bandwidth in numpy (a stand-in, {len(run.read_gbs)} times between the turns): "
        f"{_with_range(run.read_gbs)} GB/s",
        f"before the run: {_peaks(run.peaks_before)}",
    ]
    if run.peaks_after is not None:
        lines.append(f"after the run: {_peaks(run.peaks_after)}")
    if single := run.corral.get("decode 1"):
        read = statistics.median(single) * run.weights_bytes / 1e9
        lines.append(
            f"Corral's single stream reads {read:.1f} GB/s of packed weights ({run.weights_bytes / 1e6:.0f} MB)"
        )
    return lines


def _peaks(peaks: Peaks) -> str:
    if peaks.read_gbs is None:
        return peaks.source
    read = f"read {peaks.read_gbs[0]:.1f} GB/s ({peaks.read_gbs[1]:.1f}-{peaks.read_gbs[2]:.1f})"
    if peaks.int8_gops is None:
        return f"{read}, no vpdpbusd on this ISA ({peaks.source})"
    peak, lowest, highest = peaks.int8_gops
    return f"{read}, int8 peak {peak:.0f} GOPS ({lowest:.0f}-{highest:.0f}; {peaks.source})"
