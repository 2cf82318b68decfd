"""The chapters of conduct: under too much work, when probed, and towards whoever sets it up."""

from __future__ import annotations

import re
from collections import Counter

from corral.compare.report import criteria, units
from corral.compare.report.chapters.tables import missing_rows
from corral.compare.report.document import Block, Cell, Chapter, Code, Paragraph, Table, Tone
from corral.compare.report.figures import Figures
from corral.compare.report.same_work import settings_of

_REFUSALS = {429, 503}  # statuses by which a server says that it has enough to do
_TONES: dict[str, Tone] = {"pass": "good", "fail": "bad", "partly": "warn", "unknown": "missing"}
_MOST_ERRORS = 3  # kinds of errors that a cell names
_LONGEST_ERROR = 120


def overcommit(figures: Figures) -> Chapter:
    rows = []
    for workload, load in figures.loads.items():
        for engine in figures.engines:
            if figures.runs(engine, workload):
                rows.append(_answers_row(figures, engine, workload, load.title))
    head = [
        "workload",
        "engine",
        "answered",
        "refused",
        "failed",
        "asked beyond its slots",
        "ends",
        "prompt tokens told",
        "fastest over slowest",
    ]
    note = (
        "Refused: answered 429 or 503. Asked beyond its slots: clients at once less the slots that the engine tells. "
        "Ends: how often each finish reason came. Engines that tell fewer prompt tokens than others for the same work "
        "have cut them."
    )
    if not rows:
        return Chapter("overcommit", "Over-commit and fairness", [Paragraph("No workload was run.", "missing")])
    return Chapter("overcommit", "Over-commit and fairness", [Table("What became of the requests", head, rows, note)])


def probes(figures: Figures) -> Chapter:
    blocks: list[Block] = []
    checks = [check for row in figures.rows.values() for check in row.checks]
    for area in dict.fromkeys(check.area for check in checks):
        names = dict.fromkeys(check.name for check in checks if check.area == area)
        rows = [_check_row(figures, area, name) for name in names]
        note = "Each verdict with what was found. What is wanted stands below the name."
        blocks.append(Table(area.capitalize(), ["check", *figures.engines], rows, note))
    if not blocks:
        blocks.append(Paragraph("Security, production and conformance were not probed.", "missing"))
    return Chapter("probes", "Probes", blocks)


def ease(figures: Figures) -> Chapter:
    rows = []
    for engine in figures.engines:
        steps = figures.rows[engine].steps
        first = units.median(start.ready_s + start.first_token_s for start in figures.starts(engine))
        rows.append(
            [
                Cell(engine),
                Cell(str(len(steps)) if steps else units.NOTHING),
                Cell(str(sum(count_flags(step) for step in steps)) if steps else units.NOTHING),
                Cell(units.seconds(first)),
            ]
        )
    rows += missing_rows(figures.missing)
    note = "As the adapter really did it. Times of downloads and installations are not in it."
    blocks: list[Block] = [
        Table(
            "Until the first token",
            ["engine", "commands", "flags and variables", "from start to first token"],
            rows,
            note,
        )
    ]
    for engine in figures.engines:
        if figures.rows[engine].steps:
            blocks.append(Code(engine, "\n".join(figures.rows[engine].steps)))
    return Chapter("ease", "Ease", blocks)


def count_flags(step: str) -> int:
    """Flags of a command, and the variables set in front of it."""
    words = step.split()
    flags = sum(bool(re.match(r"--?[A-Za-z]", word)) for word in words)
    variables = 0
    for word in words:
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word):
            break
        variables += 1
    return flags + variables


def _check_row(figures: Figures, area: str, name: str) -> list[Cell]:
    found, wanted = {}, ""
    for engine in figures.engines:
        for check in figures.rows[engine].checks:
            if (check.area, check.name) == (area, name):
                found[engine] = Cell(check.verdict, _TONES.get(check.verdict, ""), check.found)
                wanted = wanted or check.wanted
    return [Cell(name, detail=wanted), *(found.get(engine, Cell(units.NOTHING)) for engine in figures.engines)]


def _answers_row(figures: Figures, engine: str, workload: str, title: str) -> list[Cell]:
    runs = figures.runs(engine, workload)
    answers = [answer for run in runs for answer in run.answers]
    good = [answer for answer in answers if answer.is_good]
    bad = [answer for answer in answers if not answer.is_good]
    refused = Counter(answer.error for answer in bad if answer.status in _REFUSALS)
    failed = Counter(answer.error for answer in bad if answer.status not in _REFUSALS)
    settings = settings_of(figures, engine)
    beyond = units.NOTHING
    if settings and settings.slots is not None:
        beyond = str(max(0, figures.clients(workload) - settings.slots))
    ends = Counter(answer.finish_reason or "none" for answer in good)
    prompts = [answer.prompt_tokens for answer in good if answer.prompt_tokens is not None]
    told = units.NOTHING if not prompts else f"{sum(prompts) / len(prompts):,.0f} each"
    fairness = [criteria.fairness(run) for run in runs]
    return [
        Cell(title),
        Cell(engine),
        Cell(f"{len(good)} of {len(answers)}"),
        Cell(str(refused.total()), "warn" if refused else "", _named(refused)),
        Cell(str(failed.total()), "bad" if failed else "", _named(failed)),
        Cell(beyond),
        Cell(", ".join(f"{name} {count}" for name, count in ends.most_common())),
        Cell(told),
        Cell(criteria.times_form(units.median(fairness))),
    ]


def _named(errors: Counter[str]) -> str:
    """The commonest, and how often each came."""
    return "; ".join(f"{count}: {text[:_LONGEST_ERROR]}" for text, count in errors.most_common(_MOST_ERRORS))
