"""The chapters of what was run: machine, command lines, and whether the engines did the same work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corral.compare.report import units
from corral.compare.report.chapters.tables import MISSING, by_engine, differing, side_by_side
from corral.compare.report.document import Block, Cell, Chapter, Code, Heading, Paragraph, Table, Tone, cells
from corral.compare.report.figures import Figures
from corral.compare.report.same_work import agreed_share, doubts, is_miscounted, settings_of, token_counts
from corral.compare.results import Agreement

_DIGEST = 16  # hex digits that are shown; what differs is told from all of them
_DEEPEST = 3
_EXCERPT = 160  # characters of an answer


def machine(figures: Figures) -> Chapter:
    comparison = figures.comparison
    blocks: list[Block] = [
        Table("Machine", ["part", "what"], [cells(name, value) for name, value in comparison.machine.items()]),
        Table(
            "Asked of every engine", ["setting", "value"], [cells(n, _value(v)) for n, v in comparison.asked.items()]
        ),
        Code("This comparison", comparison.command),
    ]
    for row in figures.rows.values():
        if row.missing:
            blocks.append(Paragraph(f"{row.name}: {MISSING}: {row.missing}", "missing"))
        else:
            blocks.append(Code(f"{row.name} {row.version}".strip(), row.command or "it was running already"))
    return Chapter("machine", "Machine and commands", blocks)


def same_work(figures: Figures) -> Chapter:
    blocks: list[Block] = []
    doubtful = doubts(figures)
    for engine, reasons in doubtful.items():
        blocks.append(Paragraph(f"{engine}: {'; '.join(reasons)}.", "bad"))
    if figures.engines and not doubtful:
        blocks.append(Paragraph("Nothing was found that speaks against comparing these engines.", "good"))
    blocks += [_settings(figures), *_tokens(figures), *_agreements(figures)]
    return Chapter("same-work", "Same work", blocks)


def _value(value: Any, depth: int = 0) -> str:
    """As a setting is written; what is nested deeper than settings are is left out."""
    if depth > _DEEPEST:
        return "\u2026"
    if isinstance(value, dict):
        return ", ".join(f"{name}={_value(entry, depth + 1)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value(entry, depth + 1) for entry in value)
    if value is None or (isinstance(value, float) and not units.finite([value])):
        return units.NOTHING
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(figures: Figures) -> Table:
    comparison = figures.comparison
    settings = {engine: settings_of(figures, engine) for engine in figures.engines}

    def read_back(field: str) -> dict[str, str]:
        found = {engine: getattr(told, field, None) for engine, told in settings.items()}
        return {engine: units.NOTHING if value is None else _value(value) for engine, value in found.items()}

    digests = by_engine(figures, lambda engine: figures.rows[engine].digest or units.NOTHING)
    rows = [
        ("Weights", {e: Cell(figures.rows[e].weights or units.NOTHING) for e in figures.engines}),
        (
            "SHA-256 of the weights",
            {
                engine: Cell(cell.text[:_DIGEST], cell.tone, is_code=True)
                for engine, cell in differing(digests, comparison.digest or None).items()
            },
        ),
        ("Model, as it calls it", {e: Cell(text) for e, text in read_back("model").items()}),
    ]
    titles = (("context", "Context of a request"), ("slots", "Requests at once"), ("threads", "Threads"))
    for field, title in titles:
        wanted = comparison.asked.get(field)
        rows.append((title, differing(read_back(field), None if wanted is None else _value(wanted))))
    rows.append(("Type of keys and values", differing(read_back("kv_type"))))
    for title, field in (("Sampling", "sampling"), ("", "more")):
        names = dict.fromkeys(name for told in settings.values() if told for name in getattr(told, field))
        for name in names:
            values = {
                engine: _value(getattr(told, field)[name]) if told and name in getattr(told, field) else units.NOTHING
                for engine, told in settings.items()
            }
            found = differing(values) if field == "sampling" else {e: Cell(text) for e, text in values.items()}
            rows.append((f"{title} {name}".strip(), found))
    note = (
        f"As each engine tells it while it runs; {units.NOTHING} where it does not. The mark \u2717 is on what differs."
    )
    return side_by_side("Settings in effect", figures, rows, note)


def _tokens(figures: Figures) -> list[Block]:
    rows = []
    for workload, load in figures.loads.items():
        found = {}
        for engine in figures.engines:
            counted, told, mean = token_counts(figures, engine, workload)
            if not figures.runs(engine, workload):
                continue
            usage = "its usage tells none" if told is None else f"its usage says {told:,}"
            tone: Tone = "bad" if is_miscounted(counted, told) else ""
            found[engine] = Cell(f"{counted:,}", tone, f"{usage}; {units.number(mean)} an answer")
        if found:
            rows.append((load.title, found))
    note = "By the model's own tokenizer, over all repeats; every rate of this report is by this count."
    return [side_by_side("Tokens of the answers", figures, rows, note)] if rows else []


def _agreements(figures: Figures) -> list[Block]:
    agreements = figures.comparison.agreements
    if not agreements:
        return [Paragraph("Whether the engines answer alike under greedy decoding was not measured.", "missing")]
    rows = [_agreement(agreement) for agreement in agreements]
    head = ["engine", "compared with", "equal answers", "tokens before the first difference", "first differences"]
    note = (
        "Kernels that add in another order part sooner or later; agreement near zero means other weights or another "
        "template."
    )
    blocks: list[Block] = [Table("Output agreement under greedy decoding", head, rows, note)]
    examples = [row for agreement in agreements for row in _examples(agreement)]
    if examples:
        blocks += [
            Heading("Where they part"),
            Table(
                "How answers that differ begin, and the token at which they part",
                ["engine", "prompt", "token", "answer"],
                examples,
            ),
        ]
    return blocks


def _agreement(agreement: Agreement) -> list[Cell]:
    num_equal = sum(first is None for first in agreement.first_difference)
    share = agreed_share(agreement)
    parted = [str(first) for first in agreement.first_difference if first is not None]
    return cells(
        agreement.engine,
        agreement.reference,
        f"{num_equal} of {len(agreement.first_difference)}",
        units.share(share),
        f"at token {', '.join(parted)}" if parted else "none",
    )


def _examples(agreement: Agreement) -> list[Sequence[Cell]]:
    """The answers of an engine that differ, the first few words."""
    found: list[Sequence[Cell]] = []
    for prompt, answer, first in zip(agreement.prompts, agreement.answers, agreement.first_difference, strict=False):
        if first is not None:
            found.append(cells(agreement.engine, _excerpt(prompt), str(first), _excerpt(answer)))
    return found[:3]


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _EXCERPT else flat[: _EXCERPT - 1] + "\u2026"
