"""A made-up Comparison, marked as simulated: engines with speeds that were never measured."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from corral.compare.answer import Answer
from corral.compare.engines.engine import Settings
from corral.compare.results import (
    Agreement,
    Check,
    Comparison,
    EngineRow,
    GreatestRate,
    LoadCard,
    LoadRun,
    Start,
    Usage,
)

DIGEST = "ab" * 32
TOKENS = 64  # of an answer
LOADS = {
    **{f"story-{n}": LoadCard(f"story-{n}", f"Stories for {n} at once", "closed", n) for n in (1, 8, 50)},
    "chat-open": LoadCard("chat-open", "Short chats at random times", "open", 1, 0.5, notes=["Prompts are unique."]),
}


@dataclass(frozen=True, slots=True)
class Speeds:
    """Of a made-up engine.

    Args:
        first_s: until the first token of a lone request.
        token_s: of each further one, for a lone request.
        batching: 1 where twice the clients halve each one's speed, 0 where they cost nothing.
        memory: bytes when idle.
    """

    first_s: float
    token_s: float
    batching: float
    memory: float
    ready_s: float
    num_threads: int = 4


FAST = Speeds(0.10, 0.020, 0.35, 0.9e9, 0.8)
PLAIN = Speeds(0.14, 0.018, 0.9, 1.1e9, 2.1)
HEAVY = Speeds(0.9, 0.060, 0.3, 4.2e9, 130.0, 60)


def comparison(repeats: int = 3) -> Comparison:
    """Three engines and one that is missing, `repeats` rounds each."""
    made = empty()
    engines = {"corral": FAST, "llama.cpp": PLAIN, "vllm": HEAVY}
    for name, speeds in engines.items():
        made.engines.append(row(name))
        for repeat in range(repeats):
            made.starts.append(start(name, speeds, repeat, is_cold=repeat == 0))
            made.runs += [run(load, name, speeds, repeat) for load in LOADS.values()]
            made.rates.append(GreatestRate(name, repeat, 0.04 / speeds.token_s + repeat / 20, [(0.5, 1.0), (4.0, 0.4)]))
    made.engines.append(EngineRow("ollama", missing="no program called ollama on the path; install it from its site"))
    made.engines[2].notes.append("weights dequantised from the same file, as it reads no GGUF")
    made.engines[2].install_bytes = 9_800_000_000
    prompts = ["Name three rivers.", "Count to ten."]
    made.agreements.append(Agreement("llama.cpp", "corral", prompts, ["The Rhine", "1 2 3"], [None, 41], [64, 64]))
    made.agreements.append(Agreement("vllm", "corral", prompts, ["Rivers:", "one"], [3, 2], [64, 64]))
    made.slo = {"ttft": 0.5, "tpot": 0.05}
    return made


def empty() -> Comparison:
    return Comparison(
        created="2026-01-02 03:04 UTC",
        corral_version="0.0.0",
        command="corral compare corral llama.cpp vllm ollama --model M.gguf --profile article -o out",
        profile="article",
        model="M.gguf",
        digest=DIGEST,
        model_bytes=98_000_000,
        asked={"context": 8192, "slots": 32, "threads": 2, "repeats": 3},
        machine={"CPU": "a made-up CPU, 2 cores", "memory": "24 GB", "kernel": "6.1"},
        seed=7,
        is_simulated=True,
        loads=list(LOADS.values()),
    )


def row(name: str) -> EngineRow:
    is_ours = name == "corral"
    checks = [
        Check("security", "key on every route", "pass" if is_ours else "fail", "12 routes, GET /metrics: 200", "a 401"),
        Check("security", "body limit", "partly", "100 MB: connection reset", "a 413 that says the limit"),
        Check("production", "drain", "pass", "SIGTERM; the stream ended with [DONE]", "streams finish"),
        Check("conformance", "usage chunk", "unknown", "the request timed out", "tokens are told"),
    ]
    steps = ["pip install " + name, f"{name} serve --model M.gguf --port 8000 -c 8192"]
    return EngineRow(name, "1.0", "", steps[1], "M.gguf", DIGEST, 90_000_000, steps, [], checks)


def start(engine: str, speeds: Speeds, repeat: int, *, is_cold: bool = False) -> Start:
    wobble = 1 + repeat / 50
    idle = usage(speeds, speeds.ready_s, "idle", 0.0, 1.0)
    settings = Settings(
        "M", 8192, 32, 2 if engine != "vllm" else 4, "f16", 400_000_000, {"temperature": 0.8}, {"flash": "on"}
    )
    samples = [usage(speeds, at * speeds.ready_s / 5, "start", 1.0, at / 5) for at in range(5)]
    after = usage(speeds, speeds.ready_s + 90, "after", 0.01, 1.3)
    return Start(
        engine, repeat, speeds.ready_s * wobble, speeds.first_s, idle, settings, is_cold, 0.2, [*samples, idle, after]
    )


def usage(speeds: Speeds, at: float, phase: str, cpu: float, part: float) -> Usage:
    resident = round(speeds.memory * part)
    return Usage(at, phase, cpu, 0.05, resident, round(resident * 0.95), speeds.num_threads, 1)


def run(load: LoadCard, engine: str, speeds: Speeds, repeat: int, errors: Sequence[str] = ()) -> LoadRun:
    """The first answers have the errors, the others are good."""
    dice = random.Random(f"{load.name} {engine} {repeat}")
    clients = load.concurrency
    slower = clients**speeds.batching
    answers, ended = [], 0.0
    for number in range(max(clients, 6)):
        scheduled = number // clients * (speeds.first_s + TOKENS * speeds.token_s) * slower
        answer = Answer(scheduled, scheduled + 0.0004)
        if number < len(errors):
            answer.error, answer.status, answer.ended = errors[number], 503, scheduled + 0.01
        else:
            at = scheduled + speeds.first_s * slower * dice.uniform(0.8, 1.4)
            answer.head = at
            for _ in range(TOKENS):
                answer.content_times.append(at)
                at += speeds.token_s * slower * dice.uniform(0.9, 1.1)
            answer.ended, answer.text, answer.status, answer.finish_reason = at, "Once", 200, "length"
            answer.prompt_tokens, answer.completion_tokens = 40, TOKENS
        ended = max(ended, answer.ended)
        answers.append(answer)
    samples = [
        usage(speeds, speeds.ready_s + 5 + i * ended / 20, "load", dice.uniform(1.7, 2), 1.0 + i / 60)
        for i in range(20)
    ]
    good = [TOKENS for answer in answers if answer.is_good]
    return LoadRun(load.name, engine, repeat, ended, answers, good, 0.06, 0.01, samples)


HOSTILE = "<script>alert(1)</script> | `x` [a](http://evil.example/) \n# title **b** \" onload='x' {{ 7*7 }} &amp;"


def hostile() -> Comparison:
    """Texts that would be markup anywhere they are not escaped, and numbers that no plot can show."""
    made = comparison(repeats=1)
    name = HOSTILE
    made.is_simulated = True
    made.model = made.profile = made.command = made.created = made.digest = HOSTILE
    made.machine = {HOSTILE: HOSTILE}
    made.asked = {HOSTILE: [HOSTILE, {HOSTILE: math.nan}], "context": None, "slots": math.inf}
    made.faults = [HOSTILE]
    made.engines[0] = EngineRow(
        name, name, "", name, name, name, 1, [name], [name], [Check(name, name, "fail", name, name)]
    )
    made.engines.append(EngineRow(f"{name} missing", missing=name))
    made.agreements.append(Agreement(name, name, [name], [name], [0], [0]))
    made.loads.append(LoadCard(name, name, name, notes=[name]))
    settings = Settings(name, None, None, None, name, None, {name: math.nan}, {name: name})
    made.starts.append(Start(name, 0, math.nan, math.inf, None, settings))
    broken = Answer(0.0, 0.0, None, [math.nan, math.inf, -1.0, 1e300], math.inf, name, None, None, None, name, 200)
    failed = Answer(0.0, error=name, finish_reason=name)
    samples = [Usage(math.nan, name, math.inf, math.nan, 0, None, 0, 0), Usage(0.0, "load", 1e308, 0.0, 1, None, 1, 1)]
    made.runs.append(LoadRun(name, name, 0, math.nan, [broken, failed], [3], math.nan, math.inf, samples))
    made.runs.append(LoadRun(name, name, 1, 0.0, [], [], 0.0, 0.0))
    made.rates.append(GreatestRate(name, 0, math.nan))
    return made
