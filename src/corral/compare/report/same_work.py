"""Whether the engines did the same work: what is asked of each, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from corral.compare.agreement import SAME_START, is_other_work
from corral.compare.engines.engine import Settings
from corral.compare.report import units
from corral.compare.report.criteria import good_answers
from corral.compare.report.figures import Figures
from corral.compare.results import Agreement

MOST_MISCOUNT = 0.02  # share by which an engine's own count of tokens may differ from the tokenizer's
MOST_SHORTER = 0.05  # share by which answers may be shorter than those of the engine that wrote most


def doubts(figures: Figures) -> dict[str, list[str]]:
    """Engine -> reasons not to compare its figures with the others' as they are."""
    found: dict[str, list[str]] = {}
    for engine in figures.engines:
        if reasons := [*_of_engine(figures, engine)]:
            found[engine] = reasons
    return found


def settings_of(figures: Figures, engine: str) -> Settings | None:
    """As read back at its last start."""
    starts = figures.starts(engine)
    return starts[-1].settings if starts else None


def agreed_share(agreement: Agreement) -> float | None:
    """Tokens before the first difference, of all that were compared."""
    total = sum(agreement.num_tokens)
    equal = sum(
        length if first is None else min(first, length)
        for first, length in zip(agreement.first_difference, agreement.num_tokens, strict=False)
    )
    return equal / total if total else None


def token_counts(figures: Figures, engine: str, workload: str) -> tuple[int, int | None, float | None]:
    """Output tokens by the model's tokenizer, by the engine's own usage (None if it tells none), and per answer."""
    counted, told, num_answers, is_told = 0, 0, 0, False
    for run in figures.runs(engine, workload):
        answers = good_answers(run)
        counted += sum(run.answer_tokens)
        num_answers += len(answers)
        for answer in answers:
            if answer.completion_tokens is not None:
                told += answer.completion_tokens
                is_told = True
    return counted, told if is_told else None, counted / num_answers if num_answers else None


def is_miscounted(counted: int, told: int | None) -> bool:
    return told is not None and abs(told - counted) > MOST_MISCOUNT * max(counted, 1)


def _of_engine(figures: Figures, engine: str) -> Iterator[str]:
    comparison, row = figures.comparison, figures.rows[engine]
    if row.digest and comparison.digest and row.digest != comparison.digest:
        yield "it read other weights: the digest differs"
    settings = settings_of(figures, engine)
    if settings:
        yield from _settings_apart(settings, comparison.asked)
    for agreement in comparison.agreements:
        if agreement.engine == engine and is_other_work(agreement):
            yield (
                f"most of its greedy answers part from {agreement.reference}'s within the first {SAME_START} tokens, "
                f"which other weights or another template do"
            )
    shorter = [name for name in figures.loads if _is_shorter(figures, engine, name)]
    if shorter:
        yield f"its answers are more than {MOST_SHORTER * 100:g} % shorter than another's in {', '.join(shorter)}"


def _settings_apart(settings: Settings, asked: Mapping[str, Any]) -> Iterator[str]:
    """Less of something than was asked for, or another number of threads."""
    context, slots, threads = (asked.get(name) for name in ("context", "slots", "threads"))
    if isinstance(context, int) and settings.context is not None and settings.context < context:
        yield f"a request may have {settings.context:,} tokens of context, not the {context:,} that were asked for"
    if isinstance(slots, int) and settings.slots is not None and settings.slots < slots:
        yield f"it takes {settings.slots} requests at once, not the {slots} that were asked for"
    if isinstance(threads, int) and settings.threads is not None and settings.threads != threads:
        yield f"it has {settings.threads} threads, not the {threads} that were asked for"


def _is_shorter(figures: Figures, engine: str, workload: str) -> bool:
    means = {name: token_counts(figures, name, workload)[2] for name in figures.engines}
    known = units.finite(means.values())
    own = means[engine]
    return bool(known and own is not None and own < (1 - MOST_SHORTER) * max(known))
