"""Requests that go on in the next worker: of real processes with scripted models, and of workers made up here."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from corral.errors import CorralError, EngineDead, PoisonousRequest, QueueFull, ServerDraining
from corral.request import (
    AnswerSoFar,
    Delta,
    DetokenizeRequest,
    EmbedRequest,
    FinishReason,
    Request,
    RequestOutput,
    Usage,
)
from corral.sampling_params import SamplingParams
from corral.server import replay
from corral.server.exchange import Exchange
from corral.server.quarantine import Quarantine
from corral.worker.death import Death, DeathKind
from tests.support.manager_stage import A, B, ask, later, stage

STORY = " ".join(f"word{number}" for number in range(400))


async def test_a_stream_goes_on_where_it_stood() -> None:
    async with stage() as on:
        exchange = Exchange()
        async with on.manager.lease(A, exchange) as model:
            words: list[str] = []
            num_deaths = 0
            async for output in model.generate(Request("r", prompt=STORY, sampling=SamplingParams(n=2))):
                words += [delta.text for delta in output.deltas if delta.index == 1]
                if len(words) >= 60 * (num_deaths + 1) and num_deaths < 3:
                    num_deaths += 1
                    os.kill(model.pid, signal.SIGKILL)
            assert "".join(words) == STORY.upper()
            assert output.is_finished
            assert output.usage.completion_tokens == 800
        assert [generation.num_replays for generation in exchange.generations] == [3]


async def test_many_models_and_many_streams() -> None:
    async with stage() as on, on.manager.lease(A) as a, on.manager.lease(B) as b:
        streams = [later(ask(model, f"{number} {STORY}")) for number in range(10) for model in (a, b)]
        for model in (a, b, a):
            await on.manager.refresh()
            os.kill(model.pid, signal.SIGKILL)
            await model.stats()  # the next one is there
        for number, stream in enumerate(streams):
            assert await stream == f"{number // 2} {STORY}".upper()


async def test_of_a_crowd_only_the_deadly_one_is_given_up() -> None:
    async with stage() as on, on.manager.lease(A) as model:
        others = [later(ask(model, f"{number} {STORY}")) for number in range(8)]
        await on.until(lambda: on.manager.running()[0].stats.num_requests == 8)
        with pytest.raises(PoisonousRequest, match="twice"):
            await ask(model, "die in step")
        for number, other in enumerate(others):
            assert await other == f"{number} {STORY}".upper()
        assert sum("loaded a" in line for line in on.said) == 3


async def test_a_hung_step_is_ended_and_others_go_on() -> None:
    async with stage(step_timeout_s=0.2) as on, on.manager.lease(A) as model:
        other = later(ask(model, STORY))
        with pytest.raises(PoisonousRequest, match="hung"):
            await ask(model, "hang")
        assert await other == STORY.upper()
        assert on.manager.stalled() == []


async def test_a_worker_that_answers_nothing_is_ended() -> None:
    async with stage(step_timeout_s=0.5) as on, on.manager.lease(A) as model:
        stream = later(ask(model, STORY))
        await on.until(lambda: on.manager.running()[0].stats.num_requests == 1)
        os.kill(model.pid, signal.SIGSTOP)
        assert await stream == STORY.upper()


async def test_vectors_and_texts_are_asked_for_again() -> None:
    async with stage() as on, on.manager.lease(A) as model:
        holding = later(model.embed(EmbedRequest("e", "a", ["forever"])))
        await on.until(lambda: on.manager.running()[0].stats.num_requests == 1)
        os.kill(model.pid, signal.SIGKILL)
        await on.until(lambda: len(on.manager.running()) == 1 and on.manager.running()[0].stats.num_requests == 1)
        holding.cancel()
        assert (await model.detokenize(DetokenizeRequest("d", "a", [2]))).text == "xx"


async def test_what_a_model_is_can_be_asked_while_its_worker_is_replaced() -> None:
    async with stage() as on, on.manager.lease(A) as model:
        before = await model.info()
        os.kill(model.pid, signal.SIGKILL)
        await on.until(lambda: on.states() != {"a": "ready"})
        assert (await model.info()).max_model_len == before.max_model_len


async def test_vectors_that_end_two_workers_are_refused() -> None:
    async with stage() as on, on.manager.lease(A) as model:
        with pytest.raises(PoisonousRequest):
            await model.embed(EmbedRequest("f", "a", ["die"]))
        assert (await model.detokenize(DetokenizeRequest("d", "a", [2]))).text == "xx"


async def test_the_end_of_the_server_is_no_reason_to_go_on() -> None:
    async with stage() as on, on.manager.lease(A) as model:
        stream = later(ask(model, "forever"))
        await on.until(lambda: on.manager.running()[0].stats.num_requests == 1)
        await on.manager.close()
        with pytest.raises((EngineDead, ServerDraining)):
            await stream


# ---- over workers of the test's own -----------------------------------------------------------------------------


@dataclass
class FakeWorker:
    """Gives the outputs, then raises, as each call of it is told to."""

    outputs: Sequence[RequestOutput | CorralError]
    death: Death = field(default_factory=lambda: Death(DeathKind.KILLED, "killed"))
    asked: list[Request] = field(default_factory=list)
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.died.set()

    async def generate(self, request: Request, on_left: object = None) -> AsyncGenerator[RequestOutput, None]:
        self.asked.append(request)
        for output in self.outputs:
            if isinstance(output, CorralError):
                raise output
            yield output


class FakeWard:
    def __init__(self, *workers: FakeWorker) -> None:
        self.quarantine = Quarantine()
        self.workers = iter(workers)

    async def live_worker(self) -> Any:
        return next(self.workers)

    def blame_found(self) -> None:
        raise AssertionError("nobody is to blame")


def said(*deltas: Delta, cached_tokens: int = 0, **fields: Any) -> RequestOutput:
    usage = Usage(3, sum(len(delta.token_ids) for delta in deltas), cached_tokens)
    return RequestOutput("r", deltas, usage, **fields)


async def collect(
    ward: FakeWard, request: Request, on_replay: Callable[[], None] = lambda: None
) -> list[RequestOutput]:
    return [output async for output in replay.generate(ward, request, on_replay)]


async def test_the_next_worker_gets_the_same_request_and_what_was_told() -> None:
    dead = EngineDead("dead")
    first = FakeWorker([said(), said(Delta(0, "a", (1,)), Delta(1, "", (), FinishReason.STOP), cached_tokens=7), dead])
    second = FakeWorker([said(Delta(0, "b", (2, 3)), cached_tokens=2), dead])
    third = FakeWorker([said(Delta(0, "c", (4,), FinishReason.STOP), cached_tokens=1, is_finished=True)])
    outputs = await collect(FakeWard(first, second, third), Request("r", prompt="x", sampling=SamplingParams(n=2)))
    asked = [worker.asked[0] for worker in (first, second, third)]
    assert asked[0].sampling.seed is not None
    assert asked[0].at is not None
    assert all((request.sampling, request.at) == (asked[0].sampling, asked[0].at) for request in asked)
    told = (AnswerSoFar((1,)), AnswerSoFar((), is_finished=True))
    assert [request.resumed for request in asked] == [(), told, (AnswerSoFar((1, 2, 3)), told[1])]
    assert "".join(delta.text for output in outputs for delta in output.deltas) == "abc"
    assert [output.usage.cached_tokens for output in outputs] == [0, 7, 7, 7]


async def test_a_seed_stays_as_it_is() -> None:
    worker = FakeWorker([said(Delta(0, "a", (1,), FinishReason.STOP), is_finished=True)])
    await collect(FakeWard(worker), Request("r", prompt="x", sampling=SamplingParams(seed=5)))
    assert worker.asked[0].sampling.seed == 5


async def test_nothing_told_begins_anew() -> None:
    first, second = FakeWorker([said(), EngineDead("dead")]), FakeWorker([said(is_finished=True)])
    await collect(FakeWard(first, second), Request("r", prompt="x"))
    assert second.asked[0].resumed == ()


async def test_a_full_queue_refuses_newcomers_only() -> None:
    full = QueueFull("full", retry_after_s=0)
    with pytest.raises(QueueFull):
        await collect(FakeWard(FakeWorker([full])), Request("r", prompt="x"))
    ward = FakeWard(
        FakeWorker([said(Delta(0, "a", (1,))), EngineDead("dead")]),
        FakeWorker([full]),
        FakeWorker([said(Delta(0, "b", (2,), FinishReason.STOP), is_finished=True)]),
    )
    replays: list[int] = []
    outputs = await collect(ward, Request("r", prompt="x"), lambda: replays.append(1))
    assert [delta.text for output in outputs for delta in output.deltas] == ["a", "b"]
    assert len(replays) == 1


async def test_a_worker_that_the_server_closes_ends_the_stream() -> None:
    worker = FakeWorker([said(), EngineDead("dead")], death=Death(DeathKind.CLOSED, "closed"))
    with pytest.raises(EngineDead, match="the server has stopped the model"):
        await collect(FakeWard(worker), Request("r", prompt="x"))
