"""What is read off one load: the criteria of the report, each a figure of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from corral.compare.answer import Answer
from corral.compare.report import units
from corral.compare.report.units import Form
from corral.compare.results import LoadRun, Start, Usage

Measured = TypeVar("Measured", LoadRun, Start)


@dataclass(frozen=True, slots=True)
class Criterion(Generic[Measured]):
    """One figure of a run, or of a start.

    Args:
        key: in files; `title` is for people.
        form: how a value is written, with its unit.
        unit: of the raw value, as benchstat writes it.
        of: the run's value; None where it has none.
        is_of_latency: it speaks of good answers alone, and says nothing where many failed.
        is_of_stream: it has a meaning only where answers come in pieces.
    """

    key: str
    title: str
    form: Form
    unit: str
    of: Callable[[Measured], float | None]
    is_more_better: bool = False
    is_of_latency: bool = False
    is_of_stream: bool = False


def rate_form(value: float | None) -> str:
    """Tokens per second."""
    return units.NOTHING if (text := units.number(value)) == units.NOTHING else f"{text} tok/s"


def requests_form(value: float | None) -> str:
    """Requests per second."""
    return units.NOTHING if (text := units.number(value)) == units.NOTHING else f"{text} req/s"


def cpu_form(value: float | None) -> str:
    """Seconds of one CPU."""
    return units.NOTHING if (text := units.number(value)) == units.NOTHING else f"{text} CPU s"


def times_form(value: float | None) -> str:
    """A ratio."""
    return units.NOTHING if (text := units.number(value)) == units.NOTHING else f"{text}\N{MULTIPLICATION SIGN}"


def good_answers(run: LoadRun) -> list[Answer]:
    return [answer for answer in run.answers if answer.is_good]


def with_tokens(run: LoadRun) -> Iterator[tuple[Answer, int]]:
    """The good answers and how many tokens each has by the model's tokenizer."""
    return zip(good_answers(run), run.answer_tokens, strict=False)


def first_tokens(run: LoadRun) -> list[float]:
    return units.finite(answer.first_token_s for answer in good_answers(run))


def latencies(run: LoadRun) -> list[float]:
    return units.finite(answer.latency_s for answer in good_answers(run))


def gaps(run: LoadRun) -> list[float]:
    """Pooled over all answers."""
    return units.finite(gap for answer in good_answers(run) for gap in answer.gaps_s)


def token_times(run: LoadRun) -> list[float]:
    return units.finite(answer.token_time_s(num_tokens) for answer, num_tokens in with_tokens(run))


def request_rates(run: LoadRun) -> list[float]:
    """Tokens per second of each answer, from when it was due."""
    return units.finite(tokens / answer.latency_s for answer, tokens in with_tokens(run) if answer.latency_s > 0)


def failed_share(run: LoadRun) -> float | None:
    return 1 - len(good_answers(run)) / len(run.answers) if run.answers else None


def output_rate(run: LoadRun) -> float | None:
    tokens = sum(num_tokens for _, num_tokens in with_tokens(run))
    return tokens / run.duration_s if tokens and run.duration_s > 0 else None


def cpu_per_thousand(run: LoadRun) -> float | None:
    """CPU seconds of the engine for a thousand tokens of answers."""
    tokens = sum(num_tokens for _, num_tokens in with_tokens(run))
    busy = units.finite(usage.cpu for usage in run.usage)
    return sum(busy) / len(busy) * run.duration_s / tokens * 1000 if tokens and busy else None


def memory(usage: Usage) -> float:
    """Proportional where the system tells it: shared pages are counted once."""
    return float(usage.resident_bytes if usage.proportional_bytes is None else usage.proportional_bytes)


def peak_memory(run: LoadRun) -> float | None:
    return max((memory(usage) for usage in run.usage), default=None)


def fairness(run: LoadRun) -> float | None:
    """The fastest request's rate over the slowest's."""
    rates = request_rates(run)
    return max(rates) / min(rates) if len(rates) > 1 and min(rates) > 0 else None


def within_limits(run: LoadRun, limits: Mapping[str, float]) -> float | None:
    """The share of all requests, failed ones too, that kept every limit: "ttft", "tpot", "e2e" in seconds."""
    if not run.answers or not limits:
        return None
    kept = 0
    for answer, tokens in with_tokens(run):
        found = {"ttft": answer.first_token_s, "tpot": answer.token_time_s(tokens), "e2e": answer.latency_s}
        kept += all((value := found.get(name)) is None or value <= limit for name, limit in limits.items())
    return kept / len(run.answers)


def _at(values: Callable[[LoadRun], list[float]], percent: float) -> Callable[[LoadRun], float | None]:
    return lambda run: units.percentile(values(run), percent)


def _time(key: str, title: str, unit: str, of: Callable[[LoadRun], list[float]], percent: float) -> Criterion[LoadRun]:
    """A percentile of times that only streams have."""
    return Criterion(key, title, units.seconds, unit, _at(of, percent), is_of_latency=True, is_of_stream=True)


OUTPUT_RATE: Criterion[LoadRun] = Criterion(
    "output_rate", "Output tokens per second", rate_form, "tokens/s", output_rate, is_more_better=True
)
FIRST_TOKEN = _time("first_token_p50", "First token, median", "sec/ttft", first_tokens, 50)
FIRST_TOKEN_P95 = _time("first_token_p95", "First token, p95", "sec/ttft-p95", first_tokens, 95)
TOKEN_TIME = _time("token_time_p50", "Time per token, median", "sec/tok", token_times, 50)
GAP_P99 = _time("gap_p99", "Gap between chunks, p99", "sec/gap-p99", gaps, 99)
LATENCY = Criterion("latency_p50", "Whole answer, median", units.seconds, "sec/op", _at(latencies, 50), False, True)
LATENCY_P95 = Criterion(
    "latency_p95", "Whole answer, p95", units.seconds, "sec/op-p95", _at(latencies, 95), False, True
)
PEAK_MEMORY = Criterion("peak_memory", "Memory at the peak", units.size, "B/peak", peak_memory)
CPU = Criterion("cpu_per_1000", "CPU time for 1000 tokens", cpu_form, "cpu-sec/ktok", cpu_per_thousand)
FAILED = Criterion("failed", "Requests that failed", units.share, "failed/req", failed_share)
FAIRNESS = Criterion("fairness", "Fastest request over slowest", times_form, "max/min", fairness, False, True)

# In the order of the tables. Those that get a verdict are MEASURED; failures are compared as they are.
MEASURED = (
    *(OUTPUT_RATE, FIRST_TOKEN, FIRST_TOKEN_P95, TOKEN_TIME, GAP_P99),
    *(LATENCY, LATENCY_P95, CPU, PEAK_MEMORY, FAIRNESS),
)
ALL = (*MEASURED, FAILED)


def _stop(start: Start) -> float | None:
    return start.stop_s


def _idle_memory(start: Start) -> float | None:
    return memory(start.idle) if start.idle else None


def _ready(*, is_cold: bool) -> Callable[[Start], float | None]:
    return lambda start: start.ready_s if start.is_cold is is_cold else None


def _first(*, is_cold: bool) -> Callable[[Start], float | None]:
    return lambda start: start.ready_s + start.first_token_s if start.is_cold is is_cold else None


READY_WARM = Criterion("ready_warm", "Start to ready, file cached", units.seconds, "sec/ready", _ready(is_cold=False))
READY_COLD = Criterion(
    "ready_cold", "Start to ready, file not cached", units.seconds, "sec/ready", _ready(is_cold=True)
)
FIRST_WARM = Criterion(
    "first_warm", "Start to first token, file cached", units.seconds, "sec/first", _first(is_cold=False)
)
FIRST_COLD = Criterion(
    "first_cold", "Start to first token, file not cached", units.seconds, "sec/first", _first(is_cold=True)
)
IDLE_MEMORY = Criterion("idle_memory", "Memory before the first request", units.size, "B/idle", _idle_memory)
STOP: Criterion[Start] = Criterion("stop", "SIGTERM to its end", units.seconds, "sec/stop", _stop)
OF_STARTS: tuple[Criterion[Start], ...] = (READY_WARM, READY_COLD, FIRST_WARM, FIRST_COLD, IDLE_MEMORY, STOP)
# Taken from Comparison.rates, so it has nothing of a run.
GREATEST_RATE: Criterion[Start] = Criterion(
    "greatest_rate",
    "Requests per second within the limits",
    requests_form,
    "req/s",
    lambda start: None,
    is_more_better=True,
)
