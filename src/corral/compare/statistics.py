"""What the client of one load measured, in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from corral.compare.client import MOST_CLIENT_CPU
from corral.compare.report import criteria
from corral.compare.results import LoadRun

# vLLM's names of the times, in the order of the tables.
TIMES: Mapping[str, str] = {
    "ttft": "First token (TTFT)",
    "tpot": "Time per token after it (TPOT)",
    "itl": "Gap between chunks (ITL)",
    "e2el": "Whole answer (E2EL)",
}
OF_STREAMS = ("ttft", "tpot", "itl")
_LATE_S = 0.005  # a client that sends later than this is part of what it measures


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one LoadRun.

    Args:
        input_tokens: by the server's usage; None where an answer lacks it.
        times: vLLM's name -> seconds: ttft, tpot and e2el one for each good answer, gaps (itl) pooled over all.
        kept: requests that kept the limits; None where there are none.
        client_cpu: CPUs that the client took.
        client_delay_s: how late after its due time the median request left the client.
    """

    num_requests: int
    completed: int
    duration_s: float
    input_tokens: int | None
    output_tokens: int
    times: Mapping[str, Sequence[float]]
    kept: int | None
    client_cpu: float
    client_delay_s: float

    @property
    def failed(self) -> int:
        return self.num_requests - self.completed

    def per_second(self, amount: float | None) -> float | None:
        """None where there is no such amount, or no time."""
        return None if amount is None or self.duration_s <= 0 else amount / self.duration_s

    def warnings(self) -> list[str]:
        """What puts the numbers in doubt."""
        found = []
        if self.client_cpu > MOST_CLIENT_CPU:
            found.append(
                f"the client took {self.client_cpu:.0%} of a core (more than {MOST_CLIENT_CPU:.0%}): on a machine "
                "with few cores it takes that from the server"
            )
        if self.client_delay_s > _LATE_S:
            found.append(
                f"half of the requests left the client {self.client_delay_s * 1000:.1f} ms or more after they were "
                "due; that waiting is in the times"
            )
        return found


def summarize(run: LoadRun, limits: Mapping[str, float], *, is_streamed: bool) -> Summary:
    """Whole answers have no first token and no gaps, so their times are e2el alone."""
    good = criteria.good_answers(run)
    prompts = [answer.prompt_tokens for answer in good if answer.prompt_tokens is not None]
    share = criteria.within_limits(run, limits)
    times: dict[str, Sequence[float]] = {"e2el": criteria.latencies(run)}
    if is_streamed:
        streams = (criteria.first_tokens(run), criteria.token_times(run), criteria.gaps(run))
        times = dict(zip(OF_STREAMS, streams, strict=True)) | times
    return Summary(
        num_requests=len(run.answers),
        completed=len(good),
        duration_s=run.duration_s,
        input_tokens=sum(prompts) if len(prompts) == len(good) else None,
        output_tokens=sum(run.answer_tokens),
        times=times,
        kept=None if share is None else round(share * len(run.answers)),
        client_cpu=run.client_cpu,
        client_delay_s=statistics.median(answer.client_delay_s for answer in run.answers) if run.answers else 0.0,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Between two values in proportion, as numpy and so vLLM's client has it."""
    return float(np.percentile(values, percent))


def variation(values: Sequence[float]) -> float | None:
    """The coefficient of variation of repeats: standard deviation over mean; None for fewer than two."""
    mean = statistics.fmean(values) if values else 0.0
    return statistics.stdev(values) / mean if len(values) > 1 and mean else None


def vllm_result(summary: Summary, metrics: Sequence[str], percentiles: Sequence[float]) -> dict[str, Any]:
    """In the keys of `vllm bench serve --save-result`; times in milliseconds, None where nothing was measured."""
    known_input = summary.input_tokens
    total = None if known_input is None else known_input + summary.output_tokens
    found: dict[str, Any] = {
        "duration": summary.duration_s,
        "completed": summary.completed,
        "failed": summary.failed,
        "total_input_tokens": known_input,
        "total_output_tokens": summary.output_tokens,
        "request_throughput": summary.per_second(summary.completed),
        "request_goodput": summary.per_second(summary.kept),
        "output_throughput": summary.per_second(summary.output_tokens),
        "total_token_throughput": summary.per_second(total),
    }
    for name in metrics:
        values = summary.times.get(name) or ()
        scaled = [value * 1000 for value in values]
        found[f"mean_{name}_ms"] = statistics.fmean(scaled) if scaled else None
        found[f"median_{name}_ms"] = statistics.median(scaled) if scaled else None
        found[f"std_{name}_ms"] = statistics.pstdev(scaled) if scaled else None
        for percent in percentiles:
            found[f"p{percent:g}_{name}_ms"] = percentile(scaled, percent) if scaled else None
    return found
