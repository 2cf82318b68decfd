"""What a comparison found: the JSON file is a Comparison, and the report is drawn from nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from corral.compare.answer import Answer
from corral.compare.engines.engine import Settings

FORMAT = 1  # of the JSON file


@dataclass(slots=True)
class Usage:
    """What a process tree takes, at one moment.

    Args:
        at: seconds since the turn began.
        phase: "start", "idle", "load", "after".
        cpu: CPUs busy on its behalf since the last sample; 2.0 is two.
        client_cpu: the same of the client, which takes from the engine what it takes.
        resident_bytes, proportional_bytes: RSS and PSS of the whole tree; PSS None where the system does not tell.
    """

    at: float
    phase: str
    cpu: float
    client_cpu: float
    resident_bytes: int
    proportional_bytes: int | None
    num_threads: int
    num_processes: int


@dataclass(slots=True)
class LoadCard:
    """What a reader has to know of a workload: a Workload without its calls.

    Args:
        kind: "closed", "open" or "burst".
        concurrency: clients at once; of a burst, how many requests there are.
        rate: requests a second of an open loop; 0 for the others.
    """

    name: str
    title: str
    kind: str
    concurrency: int = 1
    rate: float = 0.0
    is_streamed: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class LoadRun:
    """One workload on one engine, once.

    Args:
        answer_tokens: of each good answer by the model's own tokenizer, in the order of `answers`.
        duration_s: from when the first request was due to the end of the last answer.
        foreign_cpu: CPUs that neither engine nor client took.
    """

    workload: str
    engine: str
    repeat: int
    duration_s: float
    answers: list[Answer]
    answer_tokens: list[int]
    client_cpu: float = 0.0
    foreign_cpu: float = 0.0
    usage: list[Usage] = field(default_factory=list)


@dataclass(slots=True)
class Start:
    """One start of an engine.

    Args:
        ready_s: from the start of its process until it says that it is ready.
        first_token_s: from then to the first token of its first request, with what has to be prepared for it.
        is_cold: the file was not in the page cache.
        idle: the last sample before the first request.
        settings: read back.
        stop_s: from SIGTERM to its end.
    """

    engine: str
    repeat: int
    ready_s: float
    first_token_s: float
    idle: Usage | None
    settings: Settings
    is_cold: bool = False
    stop_s: float | None = None
    usage: list[Usage] = field(default_factory=list)


@dataclass(slots=True)
class GreatestRate:
    """The greatest rate of an open loop at which an engine kept the limits, once.

    Args:
        rate: requests a second; 0 if it kept them at none that was tried.
        tried: rate and the share of requests within the limits, in the order in which they were tried.
    """

    engine: str
    repeat: int
    rate: float
    tried: list[tuple[float, float]] = field(default_factory=list)


@dataclass(slots=True)
class Agreement:
    """Greedy answers of an engine beside those of the first one.

    Args:
        first_difference: of each prompt, the token at which the answers part; None where they are equal.
        num_tokens: of each prompt's shorter answer.
    """

    engine: str
    reference: str
    prompts: list[str]
    answers: list[str]
    first_difference: list[int | None]
    num_tokens: list[int]


@dataclass(slots=True)
class Check:
    """One check of a probe.

    Args:
        area: "security", "production" or "conformance".
        name: a few words, the same for every engine.
        verdict: "unknown" is for what could not be tried, and `found` says why.
        found: what was sent and what came, in a line or two: evidence, never a word like "good".
        wanted: what a user would want, and why.
    """

    area: str
    name: str
    verdict: Literal["pass", "fail", "partly", "unknown"]
    found: str
    wanted: str


@dataclass(slots=True)
class EngineRow:
    """One engine of the comparison.

    Args:
        missing: why it was not run; "" if it was. A row without numbers says this in their place.
        command: as typed, without the folders of this machine.
        steps: what a user types until the first token, counted for the ledger of ease.
        notes: what the reader has to know (weights dequantised from the same file, and so on).
    """

    name: str
    version: str = ""
    missing: str = ""
    command: str = ""
    weights: str = ""
    digest: str = ""
    install_bytes: int | None = None
    steps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    """One criterion for one pair of engines.

    Args:
        criterion: its key; `title` is for people.
        workload: "" for what is measured at the start of an engine.
        ratio: how many times better the first one is than the second, by the medians: below 1, it is worse.
        low, high: the 95 % interval of the bootstrap; None where the repeats are too few for one.
        winner: "" where no difference is detectable.
        text: the verdict in words.
    """

    criterion: str
    title: str
    workload: str
    first: str
    second: str
    ratio: float
    low: float | None
    high: float | None
    winner: str
    text: str


@dataclass(slots=True)
class Comparison:
    """Everything. `corral_version` made it; `command` makes it again.

    Args:
        asked: of every engine alike: context, slots, threads, repeats and the like.
        loads: in the order of the report.
        slo: "ttft", "tpot", "e2e" -> seconds that a request may take; empty where no limits were given.
    """

    created: str
    corral_version: str
    command: str
    profile: str
    model: str
    digest: str
    model_bytes: int
    asked: dict[str, Any]
    machine: dict[str, str]
    seed: int
    format: int = FORMAT
    is_simulated: bool = False
    engines: list[EngineRow] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    loads: list[LoadCard] = field(default_factory=list)
    runs: list[LoadRun] = field(default_factory=list)
    rates: list[GreatestRate] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    slo: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
