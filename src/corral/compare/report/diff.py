"""Two files of the same comparison, then and now: what has become worse beyond doubt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corral.compare.report import criteria, units
from corral.compare.report.criteria import Criterion
from corral.compare.report.figures import Figures
from corral.compare.report.json_file import InvalidComparison, read_comparison
from corral.compare.report.ratio import Ratio, unpaired_ratio
from corral.compare.report.verdicts import greatest_rates, interval_text, judge
from corral.compare.results import Comparison, LoadRun, Start

_PASSING = {"load average at start", "swap used"}  # of the machine card
MORE_FAILED = 0.01  # share of requests by which more may fail
WORSE, NOTHING_WORSE, NOT_COMPARABLE = 1, 0, 2  # exit codes
Outcome = Literal["better", "worse", "no detectable difference", "too few repeats"]


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One figure of one engine; `before` and `after` are its medians in words, `ratio` how many times better it is."""

    engine: str
    what: str
    before: str
    after: str
    ratio: str
    outcome: Outcome


@dataclass(slots=True)
class Diff:
    """What has changed.

    Args:
        refusal: why the files cannot be compared; "" if they can.
        warnings: what makes the figures less comparable than they look.
    """

    refusal: str = ""
    warnings: list[str] = field(default_factory=list)
    rows: list[DiffRow] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 where something is worse, 2 where the files cannot be compared, else 0."""
        if self.refusal:
            return NOT_COMPARABLE
        return WORSE if any(row.outcome == "worse" for row in self.rows) else NOTHING_WORSE


def diff_files(before: Path, after: Path) -> Diff:
    """`diff` of two files; one that cannot be read is a refusal."""
    try:
        return diff(read_comparison(before), read_comparison(after))
    except InvalidComparison as error:
        return Diff(str(error))


def diff(before: Comparison, after: Comparison) -> Diff:
    """Every figure that both have, of every engine that both name."""
    then, now = Figures(before), Figures(after)
    found = Diff(_refusal(then, now))
    if found.refusal:
        return found
    found.warnings += _warnings(then, now)
    for engine, row in now.rows.items():
        if engine not in then.engines:
            continue
        if row.missing:
            found.rows.append(DiffRow(engine, "whether it runs", "it did", f"not run: {row.missing}", "", "worse"))
        else:
            found.rows += [*_figures(then, now, engine), *_failures(then, now, engine), *_checks(then, now, engine)]
    if not found.rows:
        found.refusal = "the files have no figure of any engine in common"
    return found


def table_rows(found: Diff, *, is_whole: bool = False) -> list[list[str]]:
    """For a terminal: a head, then the worse, the better and, with `is_whole`, the others."""
    order = {"worse": 0, "better": 1, "too few repeats": 2, "no detectable difference": 3}
    rows = [row for row in found.rows if is_whole or order[row.outcome] < 2]
    head = ["ENGINE", "WHAT", "BEFORE", "AFTER", "TIMES BETTER", "OUTCOME"]
    body = [
        [r.engine, r.what, r.before, r.after, r.ratio, r.outcome] for r in sorted(rows, key=lambda r: order[r.outcome])
    ]
    return [head, *body]


def closing_line(found: Diff) -> str:
    """What it comes to, in a line."""
    if found.refusal:
        return f"cannot be compared: {found.refusal}"
    counts = {outcome: sum(row.outcome == outcome for row in found.rows) for outcome in ("worse", "better")}
    undecided = len(found.rows) - sum(counts.values())
    return f"{counts['worse']} worse, {counts['better']} better, {undecided} the same or undecided"


def _refusal(then: Figures, now: Figures) -> str:
    before, after = then.comparison, now.comparison
    if before.is_simulated != after.is_simulated:
        return "one of them is simulated"
    if before.digest != after.digest:
        return f"they are of different models: {_model(before)} and {_model(after)}"
    if before.profile != after.profile:
        return f"they are of different profiles: {before.profile} and {after.profile}"
    if not {*then.engines} & {*now.rows}:
        return f"no engine is in both: {', '.join(then.engines) or 'none'}, and {', '.join(now.engines) or 'none'}"
    return ""


def _model(comparison: Comparison) -> str:
    return f"{comparison.model} ({comparison.digest[:12] or 'no digest'})"


def _warnings(then: Figures, now: Figures) -> Iterator[str]:
    before, after = then.comparison, now.comparison
    old, new = _lasting(before.machine), _lasting(after.machine)
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name):
            yield f"the machine differs: {name}: {old.get(name)}, then {new.get(name)}"
    for name in [*before.asked, *(name for name in after.asked if name not in before.asked)]:
        if name != "repeats" and before.asked.get(name) != after.asked.get(name):
            yield f"other settings were asked for: {name}: {before.asked.get(name)}, then {after.asked.get(name)}"
    for engine in then.engines:
        if engine not in now.rows:
            yield f"{engine} is in the first file alone"
    for engine in now.engines:
        if engine not in then.engines:
            yield f"{engine} has figures in the second file alone"


def _lasting(machine: Mapping[str, str]) -> dict[str, str]:
    """What stays the same from one hour to the next: not the load, nor how much memory is free."""
    return {
        name: text.partition(",")[0] if name == "memory" else text
        for name, text in machine.items()
        if name not in _PASSING
    }


def _figures(then: Figures, now: Figures, engine: str) -> Iterator[DiffRow]:
    seed = now.comparison.seed
    for workload, load in then.loads.items():
        if then.runs(engine, workload) and not now.runs(engine, workload):
            yield DiffRow(engine, load.title, "it was run", "it was not", "", "worse")
        for criterion in criteria.MEASURED:
            pair = (then.values(engine, workload, criterion), now.values(engine, workload, criterion))
            yield from _row(engine, f"{load.title}: {criterion.title}", criterion, pair, seed)
    for start_criterion in criteria.OF_STARTS:
        pair = (then.start_values(engine, start_criterion.of), now.start_values(engine, start_criterion.of))
        yield from _row(engine, start_criterion.title, start_criterion, pair, seed)
    pair = (greatest_rates(then)[engine], greatest_rates(now)[engine])
    yield from _row(engine, criteria.GREATEST_RATE.title, criteria.GREATEST_RATE, pair, seed)


def _row(
    engine: str,
    what: str,
    criterion: Criterion[LoadRun] | Criterion[Start],
    pair: tuple[dict[int, float], dict[int, float]],
    seed: int,
) -> Iterator[DiffRow]:
    old, new = pair
    ratio = unpaired_ratio(new, old, seed) if criterion.is_more_better else unpaired_ratio(old, new, seed)
    if old and new and ratio is not None:
        texts = [units.spread(values.values(), criterion.form) for values in pair]
        yield DiffRow(engine, what, texts[0], texts[1], _ratio_text(ratio), _outcome(ratio))


def _ratio_text(ratio: Ratio) -> str:
    return f"{units.number(ratio.value)} ({interval_text(ratio.low, ratio.high)})"


def _outcome(ratio: Ratio) -> Outcome:
    if ratio.low is None:
        return "too few repeats"
    outcomes: dict[int, Outcome] = {1: "better", -1: "worse", 0: "no detectable difference"}
    return outcomes[judge(ratio)]


def _failures(then: Figures, now: Figures, engine: str) -> Iterator[DiffRow]:
    for workload, load in then.loads.items():
        (old_bad, old_all), (new_bad, new_all) = then.failed(engine, workload), now.failed(engine, workload)
        if not old_all or not new_all:
            continue
        change = new_bad / new_all - old_bad / old_all
        outcome: Outcome = "no detectable difference"
        if abs(change) > MORE_FAILED:
            outcome = "worse" if change > 0 else "better"
        texts = (f"{old_bad} of {old_all}", f"{new_bad} of {new_all}")
        yield DiffRow(engine, f"{load.title}: requests that failed", *texts, "", outcome)


def _checks(then: Figures, now: Figures, engine: str) -> Iterator[DiffRow]:
    """Checks whose verdict has changed; what could not be tried once says nothing."""
    ranks = {"fail": 0, "partly": 1, "pass": 2}
    old = {(check.area, check.name): check.verdict for check in then.rows[engine].checks}
    for check in now.rows[engine].checks:
        before = old.get((check.area, check.name), "unknown")
        if before in ranks and check.verdict in ranks and before != check.verdict:
            outcome: Outcome = "worse" if ranks[check.verdict] < ranks[before] else "better"
            yield DiffRow(engine, f"{check.area}: {check.name}", before, check.verdict, "", outcome)
