"""Loads on a clock that is not the machine's: when requests are due, and what is waited for on whose account."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest

from corral.compare.answer import Answer
from corral.compare.arrivals import arrivals
from corral.compare.client import MOST_CLIENT_CPU, Now
from corral.compare.engines.simulated_server import Behaviour
from corral.compare.load import Load
from corral.compare.results import LoadRun
from corral.compare.statistics import summarize
from corral.compare.workload import Call, Message, Plan, Workload
from corral.errors import InvalidConfig
from tests.support.simulated_engine import client_of, count_words, simulated


class Clock:
    """Time passes only while everybody sleeps."""

    def __init__(self) -> None:
        self.time = 100.0  # a clock begins anywhere
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.time + seconds, woken))
        await woken.wait()

    async def drive(self, load: Load) -> None:
        running = asyncio.ensure_future(load.run())
        while not running.done():
            for _ in range(50):  # whoever can go on does
                await asyncio.sleep(0)
            if self._sleepers and not running.done():
                self._sleepers.sort(key=lambda sleeper: sleeper[0])
                self.time, woken = self._sleepers.pop(0)
                woken.set()
        await running


class Server:
    """One request at a time, each a second long; its first text comes in the middle."""

    def __init__(self, clock: Clock, *, slots: int = 1, failing: Sequence[str] = ()) -> None:
        self._clock, self._slots, self._failing = clock, asyncio.Semaphore(slots), failing
        self.asked: list[list[str]] = []

    async def ask(
        self, call: Call, before: Sequence[Message], answer: Answer, now: Now, *, is_streamed: bool = True
    ) -> None:
        self.asked.append([message["content"] for message in (*before, *call.messages)])
        answer.sent = now()
        async with self._slots:
            await self._clock.sleep(0.5)
            answer.content_times.append(now())
            await self._clock.sleep(0.5)
        answer.text = f"re {call.messages[-1]['content']}"
        answer.error = "boom" if call.messages[-1]["content"] in self._failing else ""
        answer.ended = now()


def says(*turns: str) -> list[Call]:
    return [Call(({"role": "user", "content": turn},), 5) for turn in turns]


def workload(plan: Plan, *conversations: Sequence[Call], **more: Any) -> Workload:
    return Workload("w", "w", plan, lambda repeat: conversations, **more)


async def run_load(server: Server, clock: Clock, work: Workload, **more: Any) -> Load:
    load = Load(work, 0, server.ask, clock=clock.now, sleep=clock.sleep, **more)
    await clock.drive(load)
    return load


async def test_waiting_for_a_place_counts_from_when_a_request_was_due() -> None:
    """Measuring bug 1, coordinated omission: a timer behind the client's semaphore would read 1 s four times."""
    clock = Clock()
    work = workload(Plan("burst"), *(says(str(n)) for n in range(4)))
    load = await run_load(Server(clock), clock, work, max_in_flight=1)
    assert [answer.latency_s for answer in load.answers] == pytest.approx([1, 2, 3, 4])
    assert [answer.first_token_s for answer in load.answers] == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert [answer.client_delay_s for answer in load.answers] == pytest.approx([0, 1, 2, 3])  # told apart
    assert load.duration_s == pytest.approx(4)


async def test_an_open_loop_keeps_its_times_whatever_the_server_does() -> None:
    """Measuring bug 1 again: a slow server does not slow the arrivals."""
    clock = Clock()
    work = workload(Plan("open", rate=10.0), *(says(str(n)) for n in range(20)))
    load = await run_load(Server(clock), clock, work, seed=3)
    due = arrivals(10.0, 20, "3 w 0 arrivals")
    assert [answer.scheduled for answer in load.answers] == pytest.approx(due)
    assert [answer.sent for answer in load.answers] == pytest.approx(due)
    assert max(answer.latency_s for answer in load.answers) > 15


async def test_a_closed_loop_asks_again_when_it_is_answered() -> None:
    clock = Clock()
    work = workload(Plan("closed", 2), *(says(str(n)) for n in range(6)))
    load = await run_load(Server(clock, slots=2), clock, work)
    assert sorted(answer.scheduled for answer in load.answers) == pytest.approx([0, 0, 1, 1, 2, 2])
    assert all(answer.latency_s == pytest.approx(1) for answer in load.answers)


async def test_a_conversation_sends_again_what_was_said() -> None:
    clock = Clock()
    server = Server(clock)
    load = await run_load(server, clock, workload(Plan("closed", 1), says("a", "b", "c")))
    assert server.asked == [["a"], ["a", "re a", "b"], ["a", "re a", "b", "re b", "c"]]
    assert [answer.conversation for answer in load.answers] == [(0, 0), (0, 1), (0, 2)]


async def test_turns_after_a_failed_one_are_not_dropped_in_silence() -> None:
    clock = Clock()
    load = await run_load(Server(clock, failing=["a"]), clock, workload(Plan("closed", 1), says("a", "b"), says("c")))
    assert [answer.error for answer in load.answers] == ["boom", "not asked: the turn before it failed", ""]


async def test_background_runs_beside_and_ends_with_the_load() -> None:
    clock = Clock()
    beside = [says(f"long {n}") for n in range(100)]
    work = workload(Plan("closed", 1), says("a"), says("b"), background=lambda repeat: beside)
    load = await run_load(Server(clock, slots=2), clock, work)
    assert [answer.text for answer in load.answers] == ["re a", "re b"]
    assert 1 <= len(load.background) <= 3


async def test_a_time_limit_cuts_off_and_says_so() -> None:
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    load = Load(workload(Plan("closed", 2), *(says(str(n)) for n in range(5))), 0, never, limit_s=0.05)
    await load.run()
    assert len(load.answers) == load.num_calls == 5
    assert all("0.05 s" in answer.error and answer.ended > 0 for answer in load.answers)
    assert sum(answer.error.startswith("not asked") for answer in load.answers) == 3


async def test_a_cancelled_load_keeps_what_it_measured() -> None:
    is_waiting = asyncio.Event()

    async def ask(call: Call, before: Sequence[Message], answer: Answer, now: Now, *, is_streamed: bool = True) -> None:
        if call.messages[0]["content"] == "never":
            is_waiting.set()
            await asyncio.Event().wait()
        answer.ended = now()

    load = Load(workload(Plan("burst"), says("a"), says("never")), 0, ask)
    running = asyncio.ensure_future(load.run())
    await is_waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [answer.error for answer in load.answers] == ["", "interrupted"]


def test_poisson_arrivals_have_their_rate_and_their_spread() -> None:
    times = arrivals(4.0, 20_000, "seed")
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    mean = fmean(gaps)
    assert mean == pytest.approx(0.25, rel=0.03)
    variance = fmean((gap - mean) ** 2 for gap in gaps)
    assert variance**0.5 / mean == pytest.approx(1.0, rel=0.05)  # of an exponential distribution
    assert times == arrivals(4.0, 20_000, "seed") != arrivals(4.0, 20_000, "other")
    even = arrivals(4.0, 2_000, "seed", burstiness=100.0)
    assert even[-1] == pytest.approx(500, rel=0.03)


@pytest.mark.parametrize(("rate", "shape"), [(0.0, 1.0), (-1.0, 1.0), (float("inf"), 1.0), (1.0, 0.0)])
def test_rates_that_cannot_be(rate: float, shape: float) -> None:
    with pytest.raises(InvalidConfig):
        arrivals(rate, 1, "", burstiness=shape)


def run_of(*answers: Answer, tokens: Sequence[int] = (), client_cpu: float = 0.0) -> LoadRun:
    return LoadRun("w", "e", 0, 10.0, list(answers), list(tokens), client_cpu)


def test_a_client_that_takes_the_cpu_is_flagged() -> None:
    """Measuring bug 7: on two cores the client steals from the server."""
    answer = Answer(0.0, content_times=[1.0], ended=2.0)
    assert not summarize(run_of(answer, client_cpu=MOST_CLIENT_CPU), {}, is_streamed=True).warnings()
    (warning,) = summarize(run_of(answer, client_cpu=0.31), {}, is_streamed=True).warnings()
    assert "31% of a core" in warning
    late = Answer(0.0, sent=0.02, content_times=[1.0], ended=2.0)
    assert "20.0 ms" in summarize(run_of(late), {}, is_streamed=True).warnings()[0]


def test_answers_of_different_lengths_are_compared_per_token() -> None:
    """Measuring bug 5: half the answer in half the time is not twice as fast."""
    short = Answer(0.0, content_times=[1.0, 3.0], ended=3.0, text="a b c")
    long = Answer(0.0, content_times=[1.0, 5.0], ended=5.0, text="a b c d e")
    found = [summarize(run_of(a, tokens=[count_words(a.text)]), {}, is_streamed=True) for a in (short, long)]
    assert [list(summary.times["tpot"]) for summary in found] == [[1.0], [1.0]]
    assert [summary.output_tokens for summary in found] == [3, 5]


async def test_what_failed_is_counted_and_never_made_up() -> None:
    """Measuring bug 6: a server that is not there gives failures, no numbers."""
    async with simulated() as (_, url):
        pass
    load = Load(workload(Plan("burst"), says("a"), says("b")), 0, client_of(url).ask)
    await load.run()
    found = summarize(load.result("e", count_words), {"ttft": 1.0}, is_streamed=True)
    assert (found.completed, found.failed, found.kept, found.output_tokens) == (0, 2, 0, 0)
    assert all(not values for values in found.times.values())


async def test_a_load_over_a_real_socket_queues_at_the_server() -> None:
    async with simulated(Behaviour(ttft_s=0.02, gap_s=0.001, slots=1)) as (server, url):
        load = Load(workload(Plan("burst"), *(says(str(n)) for n in range(5))), 0, client_of(url).ask)
        await load.run()
    run = load.result("simulated", None)
    assert run.answer_tokens == [5] * 5
    first = sorted(answer.first_token_s or 0 for answer in run.answers)
    assert first[-1] >= 5 * 0.02  # the last one waited for the four before it
    assert len(server.served) == 5
