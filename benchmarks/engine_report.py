"""A comparison of engines as a Markdown page: tables, machine card, commands, what could not be run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.cells import Cell, Regime
from benchmarks.engine_run import CORRAL, LLAMA_CPP, ONE_THREAD, OPENVINO, Run
from benchmarks.llama_cells import DEFAULT
from benchmarks.machine import MAX_FOREIGN
from benchmarks.spread import FEW_REPEATS, MAX_SPREAD, ratio, with_range

LLAMA_DEFAULT = f"{LLAMA_CPP}, {DEFAULT}"
LEGEND = (
    "Tokens per second, all streams of a cell together; median of the repeats, in brackets the lowest and the highest "
    f"(n: repeats, where fewer than {FEW_REPEATS}). Ratios: Corral to the rival, of the medians, in brackets the "
    f"lowest and the highest of the repeats. `~`: the repeats scatter by more than {MAX_SPREAD:.0%} of the median. "
    "llama.cpp's best flags: in each cell the fastest of those that calibration left."
)


def markdown(run: Run) -> str:
    """The whole page."""
    done = 1 + max((turn.repeat for turn in run.turns), default=-1)
    parts = [
        f"# {run.model}: Corral beside other engines, {run.date}",
        LEGEND,
        _table(run),
        "## Share of the limit",
        "Matrices only: operations of the int8 peak (vpdpbusd, all threads), bytes read of the read bandwidth, both "
        "measured just before and after each of Corral's turns. Bold: what bounds the cell.",
        _limits_table(run),
        *_scaling(run),
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in run.card.items()),
        "\n".join(f"- {line}" for line in _conditions(run, done)),
        "## Commands",
        "In each repeat one after the other, each in a fresh process:",
        "\n".join(f"    {command}" for commands in run.commands.values() for command in commands),
    ]
    foreign = [turn.foreign for turn in run.turns]
    if foreign and statistics.median(foreign) > MAX_FOREIGN:
        parts.insert(1, "**The machine was busy with other work: these figures compare nothing.**")
    if run.failures:
        parts += ["## Not run", "\n".join(f"- {name}: {why}" for name, why in run.failures.items())]
    return "\n\n".join(parts) + "\n"


def _table(run: Run) -> str:
    rivals = "llama.cpp, default flags | ratio | llama.cpp, best flags | which | ratio | OpenVINO GenAI | ratio"
    lines = [f"| cell | Corral | {rivals} |", "|---" * 9 + "|"]
    for cell in run.cells:
        default = _beside(run, cell, LLAMA_DEFAULT)
        best = run.fastest([name for name in run.contenders() if name.startswith(LLAMA_CPP)], cell)
        flags = best.removeprefix(f"{LLAMA_CPP}, ") if best else "-"
        best_columns = _beside(run, cell, best)
        openvino = _beside(run, cell, OPENVINO)
        columns = [cell.name, _speed(run, cell, CORRAL), *default, best_columns[0], flags, best_columns[1], *openvino]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _speed(run: Run, cell: Cell, contender: str | None) -> str:
    found = run.speeds(contender, cell) if contender else {}
    return with_range(list(found.values())) if found else "not run"


def _beside(run: Run, cell: Cell, rival: str | None) -> tuple[str, str]:
    """The rival's speed, and Corral's ratio to it."""
    own, other = run.speeds(CORRAL, cell), run.speeds(rival, cell) if rival else {}
    return _speed(run, cell, rival), ratio(own, other) if own and other else "-"


def _limits_table(run: Run) -> str:
    lines = ["| cell | GOPS | of the int8 peak | GB/s | of the read bandwidth |", "|---" * 5 + "|"]
    for cell in run.cells:
        turns = [turn for turn in run.turns if turn.contender == CORRAL and cell.name in turn.speeds]
        if not turns:
            continue
        operations = run.work.operations_per_token(cell) / 1e9
        gops = [turn.speeds[cell.name] * operations for turn in turns]
        peaks = [_between(turn.before.int8_gops, turn.after.int8_gops) for turn in turns]
        of_peak = _shares(gops, peaks)
        read, of_read = "-", "-"
        if cell.regime is not Regime.PREFILL:
            gbs = [turn.speeds[cell.name] / cell.streams * run.work.num_bytes / 1e9 for turn in turns]
            read = with_range(gbs)
            of_read = _shares(gbs, [_between(turn.before.read_gbs, turn.after.read_gbs) for turn in turns])
        if cell.regime is Regime.SINGLE:
            of_read = f"**{of_read}**"
        else:
            of_peak = f"**{of_peak}**"
        lines.append(f"| {cell.name} | {with_range(gops, 0)} | {of_peak} | {read} | {of_read} |")
    return "\n".join(lines)


def _between(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else (before + after) / 2


def _shares(values: Sequence[float], limits: Sequence[float | None]) -> str:
    """Median and range of value / limit; a repeat without a limit does not count."""
    shares = [value / limit for value, limit in zip(values, limits, strict=True) if limit]
    return with_range(shares, 2) if shares else "not measured"


def _scaling(run: Run) -> list[str]:
    """All threads beside one, where one has been timed."""
    if ONE_THREAD not in run.contenders():
        return []
    lines = ["| cell | all threads | one thread | ratio |", "|---" * 4 + "|"]
    for cell in run.cells:
        if found := run.speeds(ONE_THREAD, cell):
            own = run.speeds(CORRAL, cell)
            lines.append(f"| {cell.name} | {_speed(run, cell, CORRAL)} | {_speed(run, cell, ONE_THREAD)} "
                         f"| {ratio(own, found)} |")  # fmt: skip
    return ["## Threads", "\n".join(lines)]


def _conditions(run: Run, done: int) -> list[str]:
    lines = [f"repeats: {done} of {run.repeats}; turns taken again because of others: {run.num_rejected}"]
    if run.turns:
        foreign = [turn.foreign for turn in run.turns]
        reads = [turn.before.read_gbs for turn in run.turns]
        peaks = [turn.before.int8_gops for turn in run.turns if turn.before.int8_gops is not None]
        lines += [
            f"CPU taken by others in the turns: median {statistics.median(foreign):.1%}, at most {max(foreign):.1%}",
            f"read bandwidth before the turns: {with_range(reads)} GB/s",
            f"int8 peak before the turns: {with_range(peaks, 0)} GOPS" if peaks else "int8 peak: not measured",
        ]
    work = run.work
    lines.append(
        f"matrices: {work.body / 1e6:.0f} M parameters and {work.head / 1e6:.0f} M of the head, "
        f"{work.num_bytes / 1e6:.0f} MB in the file"
    )
    return lines
