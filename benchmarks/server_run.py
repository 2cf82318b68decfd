"""What a comparison of servers measured: the JSON file is a ServerRun."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.spread import percentile
from benchmarks.stream_client import Answer
from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Outcome:
    """One workload on one server, once. Seconds throughout; the tokens of answers with errors do not count.

    Args:
        seconds: from the moment that all requests are due to the end of the last answer.
        prompt_tokens: of all clients together, the chat template's included.
        first_p50, first_p95: until the first chunk with text, from when the request was due.
        gap_p50, gap_p95: between chunks with text; tokens_per_chunk is 1 where every token came in a chunk of its own.
        resident_bytes: of the server's processes, afterwards.
        foreign: share of all CPUs that processes other than server and client took.
        errors: what went wrong -> how often.
    """

    seconds: float
    prompt_tokens: int
    answer_tokens: int
    first_p50: float | None
    first_p95: float | None
    gap_p50: float | None
    gap_p95: float | None
    tokens_per_chunk: float | None
    resident_bytes: int
    foreign: float
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def output_rate(self) -> float:
        """Tokens of answers per second."""
        return self.answer_tokens / self.seconds

    @property
    def total_rate(self) -> float:
        """Tokens of prompts and answers per second."""
        return (self.answer_tokens + self.prompt_tokens) / self.seconds


@dataclass
class ServerTurn:
    """One start of one server.

    Args:
        ready_s: from the start of the process until it said that it is ready.
        first_token_s: until the first chunk with text of the first request, which was sent when it was ready.
        outcomes: workload -> what came of it.
    """

    server: str
    repeat: int
    ready_s: float | None = None
    first_token_s: float | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)


@dataclass
class ServerRun:
    """Everything that was measured.

    Args:
        versions, commands: of each server; commands without the folders of the machine.
        repeats: how many each server was to have.
        failures: what could not be run, or was left out -> why.
    """

    model: str
    date: str
    card: dict[str, str]
    workloads: list[Workload]
    versions: dict[str, str]
    commands: dict[str, str]
    repeats: dict[str, int]
    turns: list[ServerTurn] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def of(self, server: str, workload: str, what: Callable[[Outcome], float | None]) -> dict[int, float]:
        """Repeat -> the value; repeats without one are left out."""
        outcomes = {
            turn.repeat: turn.outcomes[workload]
            for turn in self.turns
            if turn.server == server and workload in turn.outcomes
        }
        values = {repeat: what(outcome) for repeat, outcome in outcomes.items()}
        return {repeat: value for repeat, value in values.items() if value is not None}


def summarize(answers: Sequence[Answer], resident_bytes: int, foreign: float) -> Outcome:
    """Of all clients' answers. Latencies are pooled over the clients."""
    good = [answer for answer in answers if answer.error is None]
    firsts = [answer.content_times[0] - answer.scheduled for answer in good]
    gaps = [b - a for answer in good for a, b in itertools.pairwise(answer.content_times)]
    num_chunks = sum(len(answer.content_times) for answer in good)
    num_tokens = sum(answer.answer_tokens for answer in good)
    errors: dict[str, int] = {}
    for answer in answers:
        if answer.error is not None:
            errors[answer.error] = errors.get(answer.error, 0) + 1
    return Outcome(
        seconds=max(answer.ended for answer in answers) - min(answer.scheduled for answer in answers),
        prompt_tokens=sum(answer.prompt_tokens for answer in good),
        answer_tokens=num_tokens,
        first_p50=percentile(firsts, 50) if firsts else None,
        first_p95=percentile(firsts, 95) if firsts else None,
        gap_p50=percentile(gaps, 50) if gaps else None,
        gap_p95=percentile(gaps, 95) if gaps else None,
        tokens_per_chunk=num_tokens / num_chunks if num_chunks else None,
        resident_bytes=resident_bytes,
        foreign=round(foreign, 3),
        errors=errors,
    )
