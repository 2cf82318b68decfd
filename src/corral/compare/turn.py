"""One engine's turn: started, awaited, asked everything, watched, stopped."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from corral.compare import page_cache
from corral.compare.agreement import greedy_answers
from corral.compare.answer import Answer
from corral.compare.client import Client, Target
from corral.compare.engines.attached import Attached
from corral.compare.engines.engine import Engine, EngineFailed, Launch, Setup
from corral.compare.exchange import parse_origin
from corral.compare.load import Load
from corral.compare.process import Server
from corral.compare.profiles import Make
from corral.compare.rates import find_greatest_rate
from corral.compare.resources import Sampler
from corral.compare.results import GreatestRate, LoadRun, Start
from corral.compare.workload import Call, Workload

IDLE_S = 2.0  # of rest before the first request, and after the last: what an engine holds when nobody asks
FIRST = Call(({"role": "user", "content": "Say hello."},), 4, is_exact=False)
REQUEST_TIMEOUT_S = 300.0
_FRESH = httpx.Limits(max_keepalive_connections=0)  # a server may close one that it has kept while we begin to use it

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine that takes part.

    Args:
        launch: how it is started; of the port that `port` names.
    """

    engine: Engine
    setup: Setup
    launch: Launch
    port: int

    @property
    def url(self) -> str:
        return self.engine.url if isinstance(self.engine, Attached) else f"http://127.0.0.1:{self.port}"

    def target(self) -> Target:
        return Target(parse_origin(self.url), self.setup.name, shape=self.engine.body)


@dataclass(slots=True)
class Turn:
    """What one came to.

    Args:
        argv: what really ran.
        steps, notes: that it added to the ledger of ease and to what the reader has to know.
        answers: to the prompts of the agreement, where they were asked.
    """

    start: Start
    runs: list[LoadRun]
    argv: Sequence[str]
    steps: Sequence[str]
    notes: Sequence[str]
    answers: list[str] | None = None
    rate: GreatestRate | None = None


async def take_turn(
    entry: Entry,
    repeat: int,
    workloads: Sequence[Workload],
    make: Make,
    *,
    log: Path,
    slo: Mapping[str, float] | None = None,
    limit_s: float | None = None,
    asks_agreement: bool = False,
    is_cold: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Turn:
    """Every workload once, on a server of its own.

    Args:
        make: what the workloads were made with.
        slo: look for the greatest rate within these limits, too; seconds by name.
        limit_s: of each workload; what is not answered by then counts as failed.
        asks_agreement: ask the greedy prompts too.
        is_cold: its files are put out of the page cache before it is started; else they are read in.

    Raises:
        EngineFailed: it did not start, or did not answer its first request; with its last words.
    """
    engine, setup, launch = entry.engine, entry.setup, entry.launch
    dropped = await asyncio.to_thread(_prepare_cache, launch, is_cold)
    async with (
        Server(launch, entry.port, log) as server,
        httpx.AsyncClient(base_url=entry.url, timeout=REQUEST_TIMEOUT_S, limits=_FRESH, trust_env=False) as http,
    ):
        with Sampler(server.tree, server.began) as sampler:
            ready_s = await server.wait_ready(engine, http, lambda seconds: progress("starts", int(seconds), 0))
            steps = list(await engine.prepare(http, setup))
            sampler.phase = "idle"
            await asyncio.sleep(IDLE_S)
            idle, rested = sampler.sample(), time.perf_counter()
            prepared_s = rested - IDLE_S - server.began
            first_s = prepared_s - ready_s + await _first_token(entry, server)
            settings = await engine.settings(http, setup)
            is_ours = bool(launch.argv)
            start = Start(
                engine.name,
                repeat,
                ready_s if is_ours else math.nan,
                first_s if is_ours else math.nan,
                idle if is_ours else None,
                settings,
                is_cold=dropped and is_ours,
            )
            runs = []
            for number, workload in enumerate(workloads):
                progress(workload.title, number, len(workloads))
                sampler.phase = "load"
                runs.append(await _run(entry, workload, repeat, make, sampler, limit_s))
            rate = None
            if slo:
                rate = await find_greatest_rate(
                    *(engine.name, repeat, Client(entry.target()).ask, make, slo),
                    progress=lambda tried: progress(f"{tried:.2g} requests a second", len(workloads), len(workloads)),
                )
            sampler.phase = "after"
            answers = None
            if asks_agreement:
                progress("greedy answers, to be compared", len(workloads), len(workloads))
                answers = await greedy_answers(http, engine, setup)
            await asyncio.sleep(IDLE_S)
        start.usage = sampler.usage if is_ours else []
        progress("stops", len(workloads), len(workloads))
        start.stop_s = await server.stop()
        return Turn(start, runs, server.argv, steps, server.notes, answers, rate)


def _prepare_cache(launch: Launch, is_cold: bool) -> bool:
    """Whether all of what it reads is out of the page cache."""
    if is_cold:
        return page_cache.drop(launch.files)
    page_cache.warm(launch.files)
    return False


async def _first_token(entry: Entry, server: Server) -> float:
    """Seconds until the first text of its first answer.

    Raises:
        EngineFailed: the answer failed.
    """
    answer = Answer(scheduled=0.0)
    began = time.perf_counter()
    await Client(entry.target()).ask(FIRST, (), answer, lambda: time.perf_counter() - began)
    if not answer.is_good or answer.first_token_s is None:
        raise EngineFailed(
            f"{entry.engine.name} failed its first request: {answer.error or 'no text'}; {server.last_words()}"
        )
    return answer.first_token_s


async def _run(
    entry: Entry,
    workload: Workload,
    repeat: int,
    make: Make,
    sampler: Sampler,
    limit_s: float | None,
) -> LoadRun:
    load = Load(workload, repeat, Client(entry.target()).ask, seed=make.seed, limit_s=limit_s)
    mark = sampler.mark()
    await load.run()
    share = sampler.since(mark)
    run = load.result(entry.engine.name, make.count_tokens)
    run.client_cpu = max(run.client_cpu, share.client_cpu)
    if entry.launch.argv:
        run.foreign_cpu, run.usage = share.foreign_cpu, share.usage
    return run
