"""One load: who asks when, and what came of it.

Every latency counts from when a request was due. In a closed loop that is when the client before it was answered; in
an open one the time of its arrival, however busy the client is, and whoever has to wait for a place among
`max_in_flight` waits on the clock. A timer that starts after the waiting reports a busy server as a quick one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from corral.compare.answer import Answer
from corral.compare.arrivals import arrivals
from corral.compare.client import Now
from corral.compare.results import LoadRun
from corral.compare.workload import Call, CountTokens, Message, Workload

INTERRUPTED = "interrupted"

Conversations = Sequence[Sequence[Call]]
Sleep = Callable[[float], Awaitable[None]]


class Ask(Protocol):
    """Client.ask."""

    def __call__(
        self, call: Call, before: Sequence[Message], answer: Answer, now: Now, *, is_streamed: bool = True
    ) -> Awaitable[None]: ...


class Load:
    """Runs one repeat of a workload; its answers are there while it runs, and after it was interrupted.

    Args:
        limit_s: what is not answered by then is cut off, and counts as failed.
        max_in_flight: of an open loop or a burst; requests beyond wait, on the clock.
        burstiness: of an open loop's arrivals.
        on_answer: called with each answer when it has ended.
        clock, sleep: of the machine, but for tests.
    """

    def __init__(
        self,
        workload: Workload,
        repeat: int,
        ask: Ask,
        *,
        seed: int = 0,
        limit_s: float | None = None,
        max_in_flight: int | None = None,
        burstiness: float = 1.0,
        on_answer: Callable[[Answer], None] | None = None,
        clock: Now = time.perf_counter,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.workload, self.repeat = workload, repeat
        self.answers: list[Answer] = []
        self.background: list[Answer] = []
        self.client_cpu = 0.0
        self.on_answer = on_answer
        self._ask, self._limit_s = ask, limit_s
        self._clock, self._sleep = clock, sleep
        self._places = asyncio.Semaphore(max_in_flight) if max_in_flight else contextlib.nullcontext()
        self._conversations = workload.calls(repeat)  # made before the clock starts: counting tokens takes time
        self._beside = workload.background(repeat) if workload.background else ()
        plan = workload.plan
        seeded = f"{seed} {workload.name} {repeat} arrivals"
        count = len(self._conversations)
        self._due = arrivals(plan.rate, count, seeded, burstiness=burstiness) if plan.kind == "open" else [0.0] * count
        self._begun = 0.0
        self._untouched = iter(range(count))

    @property
    def num_calls(self) -> int:
        return sum(len(calls) for calls in self._conversations)

    @property
    def duration_s(self) -> float:
        """From when the first request was due to the end of the last answer."""
        if not self.answers:
            return 0.0
        return max(answer.ended for answer in self.answers) - min(answer.scheduled for answer in self.answers)

    async def run(self) -> None:
        """Returns when all are answered or the time is over; a cancellation leaves what was measured so far."""
        gc.collect()
        gc.freeze()  # what is there already need not be walked while the clock runs
        self._begun = self._clock()
        busy = time.process_time()
        why = INTERRUPTED
        try:
            async with asyncio.timeout(self._limit_s):
                await self._all()
            why = ""
        except TimeoutError:
            why = f"not answered within the {self._limit_s:g} s of this load"
        finally:
            gc.unfreeze()
            wall_s = self._now()
            self.client_cpu = (time.process_time() - busy) / wall_s if wall_s > 0 else 0.0
            self._close(why)

    def result(self, engine: str, count_tokens: CountTokens | None) -> LoadRun:
        """With every good answer's tokens counted by `count_tokens`; by the server's own usage where there is none."""
        good = [answer for answer in self.answers if answer.is_good]
        tokens = [count_tokens(a.text) if count_tokens else a.completion_tokens or 0 for a in good]
        return LoadRun(
            self.workload.name, engine, self.repeat, self.duration_s, list(self.answers), tokens, self.client_cpu
        )

    def _now(self) -> float:
        return self._clock() - self._begun

    async def _all(self) -> None:
        beside = asyncio.create_task(self._run_background()) if self._beside else None
        try:
            async with asyncio.TaskGroup() as group:
                if self.workload.plan.kind == "closed":
                    for _ in range(min(self.workload.plan.concurrency, len(self._conversations))):
                        group.create_task(self._client())
                else:
                    await self._arrive(group)
        finally:
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)

    async def _client(self) -> None:
        due = 0.0
        for index in self._untouched:
            await self._converse(index, due)
            due = self._now()

    async def _arrive(self, group: asyncio.TaskGroup) -> None:
        for index in self._untouched:
            if (left_s := self._due[index] - self._now()) > 0:
                await self._sleep(left_s)
            group.create_task(self._converse(index, self._due[index]))

    async def _converse(self, index: int, due: float) -> None:
        said: list[Message] = []
        calls = self._conversations[index]
        for turn, call in enumerate(calls):
            answer = Answer(scheduled=due, conversation=(index, turn))
            self.answers.append(answer)
            async with self._places:
                await self._ask(call, said, answer, self._now, is_streamed=self.workload.is_streamed)
            self._tell(answer)
            if not answer.is_good:
                self._skip(index, turn + 1, "not asked: the turn before it failed")
                return
            said += [*call.messages, {"role": "assistant", "content": answer.text}]
            due = self._now()

    async def _run_background(self) -> None:
        """One client, who asks one thing after the other."""
        for calls in self._beside:
            said: list[Message] = []
            for call in calls:
                answer = Answer(scheduled=self._now())
                self.background.append(answer)
                await self._ask(call, said, answer, self._now, is_streamed=True)
                said += [*call.messages, {"role": "assistant", "content": answer.text}]

    def _tell(self, answer: Answer) -> None:
        if self.on_answer is not None:
            self.on_answer(answer)

    def _skip(self, index: int, first: int, why: str) -> None:
        now = self._now()
        for turn in range(first, len(self._conversations[index])):
            answer = Answer(scheduled=now, sent=now, ended=now, error=why, conversation=(index, turn))
            self.answers.append(answer)
            self._tell(answer)

    def _close(self, why: str) -> None:
        """What has no end gets one; what the time did not reach failed too, what was interrupted did not."""
        now = self._now()
        for answer in [*self.answers, *self.background]:
            if not answer.ended:
                answer.ended, answer.error = now, answer.error or why or INTERRUPTED
                answer.sent = answer.sent or now
        if why and why != INTERRUPTED:
            begun = {answer.conversation for answer in self.answers}
            for index, calls in enumerate(self._conversations):
                reached = sum((index, turn) in begun for turn in range(len(calls)))
                self._skip(index, reached, f"not asked: {why}")
