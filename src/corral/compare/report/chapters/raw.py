"""The last chapters: faults, the numbers of every run, and how all of it was measured."""

from __future__ import annotations

from corral.compare.report import criteria, units
from corral.compare.report.document import Block, Bullets, Cell, Chapter, Details, Heading, Paragraph, Table, cells
from corral.compare.report.figures import Figures
from corral.compare.report.ratio import FEW_REPEATS, RESAMPLES
from corral.compare.report.verdicts import LEAST_DIFFERENCE, MOST_FAILED
from corral.compare.results import LoadRun

MOST_DELAY_S = 0.01  # a client that is later than this measures itself
MOST_CLIENT_CPU = 0.2  # of a CPU
MOST_FOREIGN_CPU = 0.2

_HEAD = (
    *("workload", "engine", "repeat", "took", "requests", "answered", "output tokens"),
    *(criterion.title for criterion in criteria.ALL),
    *("client CPUs", "foreign CPUs", "client late, p95"),
)


def faults(figures: Figures) -> Chapter:
    found = [Cell(text, "bad") for text in figures.comparison.faults]
    found += [Cell(text, "warn") for text in _disturbances(figures)]
    blocks: list[Block] = [Bullets(found)] if found else [Paragraph("None were seen.", "good")]
    return Chapter("faults", "Faults", blocks)


def raw(figures: Figures) -> Chapter:
    runs = [_run(figures, run) for run in figures.comparison.runs]
    starts = [
        cells(
            start.engine,
            str(start.repeat),
            "no" if start.is_cold else "yes",
            units.seconds(start.ready_s),
            units.seconds(start.first_token_s),
            units.size(criteria.IDLE_MEMORY.of(start)),
            units.seconds(start.stop_s),
        )
        for start in figures.comparison.starts
    ]
    head = ["engine", "repeat", "file cached", "ready", "first token after that", "memory idle", "stop"]
    blocks: list[Block] = [
        Details("Every run", [Table("Every run of every workload", _HEAD, runs)]),
        Details("Every start", [Table("Every start of every engine", head, starts)]),
        Paragraph("The JSON file beside this page has every request, every chunk's time and every sample."),
    ]
    return Chapter("raw", "Raw numbers", blocks)


def method(figures: Figures) -> Chapter:
    comparison = figures.comparison
    items = [
        "A request's time runs from when it was due, not from when the client came round to it, so that a client that "
        "waits hides no queue. How late the client was is told with the raw numbers.",
        "The first token is the first chunk that has text, reasoning and arguments of tools too; a chunk with a role "
        "alone is none.",
        "Gaps between chunks are pooled over all answers before a percentile is taken. The time per token is that from "
        "the first to the last chunk, over the tokens but one, however many a chunk has.",
        "Prompts differ between requests and repeats unless a shared beginning is what is measured, so that no cache "
        "answers for the engine; every engine gets the same ones.",
        "Tokens are counted by the model's own tokenizer. Answers are kept equally long where an engine can be told "
        "so; where they are not, the chapter Same work says it.",
        "Engines take turns, one at a time: A B C, A B C. Drift of the machine meets all of them.",
        "The client's own processor time is measured, and told where it may have disturbed the engine.",
        "Nothing is estimated and nothing is filled in. An engine that could not be run is a row that says why.",
        f"Ratios are of the medians of the repeats. Their 95 % intervals are from {RESAMPLES:,} resamples of whole "
        f"repeats, those of the same round together (seed {comparison.seed}). An interval that has 1 in it, or a "
        f"difference below {LEAST_DIFFERENCE * 100:g} %, is no detectable difference; fewer than {FEW_REPEATS} repeats "
        f"give no verdict. Latencies are not compared where more than {MOST_FAILED * 100:g} % of the requests failed.",
        "Of a hundred verdicts on engines that are alike, about five would name a winner by chance: trust what several "
        "workloads and figures say together.",
        "Percentiles are the smallest value that at least so many do not exceed; plots of shares pool the repeats.",
    ]
    return Chapter("method", "Method", [Heading("How it was measured"), Bullets([Cell(text) for text in items])])


def _run(figures: Figures, run: LoadRun) -> list[Cell]:
    return cells(
        run.workload,
        run.engine,
        str(run.repeat),
        units.seconds(run.duration_s),
        str(len(run.answers)),
        str(len(criteria.good_answers(run))),
        f"{sum(run.answer_tokens):,}",
        *(criterion.form(figures.of_run(criterion, run)) for criterion in criteria.ALL),
        units.number(run.client_cpu),
        units.number(run.foreign_cpu),
        units.seconds(_client_delay(run)),
    )


def _client_delay(run: LoadRun) -> float | None:
    return units.percentile(units.finite(answer.client_delay_s for answer in run.answers if answer.sent), 95)


def _disturbances(figures: Figures) -> list[str]:
    """Runs whose figures were disturbed by the client or by something else on the machine."""
    found = []
    for run in figures.comparison.runs:
        name = f"{run.workload} on {run.engine}, repeat {run.repeat}"
        delay = _client_delay(run)
        if delay is not None and delay > MOST_DELAY_S:
            found.append(f"{name}: the client sent 5 % of the requests {units.seconds(delay)} or more late.")
        if MOST_CLIENT_CPU < run.client_cpu < units.MOST:
            found.append(f"{name}: the client took {units.number(run.client_cpu)} CPUs from the engine.")
        if MOST_FOREIGN_CPU < run.foreign_cpu < units.MOST:
            found.append(f"{name}: other programs took {units.number(run.foreign_cpu)} CPUs.")
    return found
