"""Who is better at what, pair by pair, as far as the repeats can tell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from corral.compare.report import criteria, units
from corral.compare.report.criteria import Criterion
from corral.compare.report.figures import Figures
from corral.compare.report.ratio import FEW_REPEATS, Ratio, inverse, paired_ratio
from corral.compare.results import LoadRun, Start, Verdict

LEAST_DIFFERENCE = 0.02  # smaller ones are called none, however sure: no user feels them
MOST_FAILED = 0.05  # share of requests beyond which the latencies of those that were answered say nothing
NO_DIFFERENCE = "no detectable difference"


def verdicts(figures: Figures) -> list[Verdict]:
    """Every workload and criterion, then the starts, then the greatest rate; each pair of engines once."""
    found = []
    for workload in figures.loads:
        for criterion in criteria.MEASURED:
            values = {engine: figures.values(engine, workload, criterion) for engine in figures.engines}
            found += _of_pairs(figures, criterion, workload, values)
    for start_criterion in criteria.OF_STARTS:
        values = {engine: figures.start_values(engine, start_criterion.of) for engine in figures.engines}
        found += _of_pairs(figures, start_criterion, "", values)
    return found + _of_pairs(figures, criteria.GREATEST_RATE, "", greatest_rates(figures))


def fails_often(figures: Figures, engine: str, workload: str) -> bool:
    """So often that the latencies of what it answered say nothing."""
    failed, total = figures.failed(engine, workload)
    return total > 0 and failed / total > MOST_FAILED


def greatest_rates(figures: Figures) -> dict[str, dict[int, float]]:
    """Engine -> repeat -> requests a second within the limits."""
    found: dict[str, dict[int, float]] = {engine: {} for engine in figures.engines}
    for rate in figures.comparison.rates:
        if units.finite([rate.rate]):
            found.setdefault(rate.engine, {})[rate.repeat] = rate.rate
    return found


def judge(ratio: Ratio | None) -> int:
    """1 where the first is better, -1 where the second is, 0 where neither can be called so."""
    if ratio is None or not ratio.is_known or abs(ratio.value - 1) < LEAST_DIFFERENCE:
        return 0
    return 1 if ratio.value > 1 else -1


def interval_text(low: float | None, high: float | None) -> str:
    """Such as "95 % interval 1.02 to 1.31"; digits that tell it from 1."""
    if low is None or high is None:
        return f"no interval: fewer than {FEW_REPEATS} repeats"
    return f"95 % interval {low:.3g} to {high:.3g}"


def _of_pairs(
    figures: Figures,
    criterion: Criterion[LoadRun] | Criterion[Start],
    workload: str,
    values: Mapping[str, Mapping[int, float]],
) -> list[Verdict]:
    found = []
    for first, second in itertools.combinations([engine for engine in figures.engines if values[engine]], 2):
        ours, theirs = values[first], values[second]
        better = (ours, theirs) if criterion.is_more_better else (theirs, ours)
        ratio = paired_ratio(*better, figures.comparison.seed)
        if ratio is None:
            continue
        refusal = _refusal(figures, criterion, workload, first, second)
        winner = "" if refusal else {1: first, -1: second, 0: ""}[judge(ratio)]
        text = refusal or _text(ratio, first, second, winner)
        found.append(
            Verdict(
                criterion.key,
                criterion.title,
                workload,
                first,
                second,
                ratio.value,
                ratio.low,
                ratio.high,
                winner,
                text,
            )
        )
    return found


def _refusal(
    figures: Figures, criterion: Criterion[LoadRun] | Criterion[Start], workload: str, first: str, second: str
) -> str:
    """Why nothing is said of the pair; "" if something is."""
    if not workload or not criterion.is_of_latency:
        return ""
    for engine in (first, second):
        if fails_often(figures, engine, workload):
            failed, total = figures.failed(engine, workload)
            return f"no verdict: {failed} of {total} requests to {engine} failed"
    return ""


def _text(ratio: Ratio, first: str, second: str, winner: str) -> str:
    if ratio.low is None:
        return f"too few repeats for a verdict ({ratio.value:.3g} times, {interval_text(None, None)})"
    if ratio.value == 0 or math.isinf(ratio.value):
        return f"{winner} alone has more than zero"
    interval = interval_text(ratio.low, ratio.high)
    if not winner:
        return f"{NO_DIFFERENCE} (ratio {ratio.value:.3g}, {interval})"
    if winner == first:
        return f"{first} is {ratio.value:.3g} times better than {second} ({interval})"
    interval = interval_text(inverse(ratio.high or 1), inverse(ratio.low))
    return f"{second} is {inverse(ratio.value):.3g} times better than {first} ({interval})"
