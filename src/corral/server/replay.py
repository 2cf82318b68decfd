"""A request that outlives its workers: when one dies, it goes on in the next from the tokens already told.

Every token follows from the request and its seed, so the answer is the same as if nothing had happened; whoever reads
it notices a pause.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from corral.errors import EngineDead, PoisonousRequest, QueueFull
from corral.request import AnswerSoFar, DetokenizeRequest, Request, RequestOutput
from corral.server.deadlines import before
from corral.server.quarantine import Asked, Patient, Quarantine
from corral.worker.client import OnRest, WorkerClient
from corral.worker.death import DeathKind

_T = TypeVar("_T")


class Ward(Protocol):
    """What a replay needs of a model's place in the server."""

    @property
    def quarantine(self) -> Quarantine: ...
    async def live_worker(self) -> WorkerClient:
        """Waits for the model to have one; raises what keeps it from that."""

    def blame_found(self) -> None:
        """What ended the worker is known and will not come again: the next one need not wait."""


@dataclass(slots=True)
class _Answer:
    token_ids: array[int] = field(default_factory=lambda: array("i"))
    is_finished: bool = False


async def generate(
    ward: Ward, request: Request, on_replay: Callable[[], None], on_left: Callable[[], OnRest] | None = None
) -> AsyncGenerator[RequestOutput, None]:
    """The outputs of a request, as WorkerClient.generate gives them, but that no worker's death ends them.

    Args:
        on_replay: called each time it goes on in another worker.
        on_left: as of WorkerClient.generate; not called where no worker has the request.

    Raises:
        PoisonousRequest: it has ended two workers.
        CorralError: as WorkerClient.generate; EngineDead only when the server itself ends the worker.
    """
    ward.quarantine.check(request)
    if request.sampling.seed is None:
        seed = random.SystemRandom().getrandbits(63)
        request = replace(request, sampling=replace(request.sampling, seed=seed))
    if request.at is None:
        request = replace(request, at=time.time())
    patient = Patient(request)
    answers = [_Answer() for _ in range(request.sampling.n)]
    cached_tokens: int | None = None  # as they were told with the first tokens
    is_replay = False
    try:
        while True:
            async with before(request.deadline):
                await ward.quarantine.enter(patient)
                worker = await ward.live_worker()
            try:
                async with aclosing(worker.generate(_resumed(request, answers), on_left)) as outputs:
                    async for output in outputs:
                        if output.deltas:
                            ward.quarantine.leave(patient)
                            _book(answers, output)
                        if is_replay:
                            output = _continued(output, cached_tokens)
                        if output.deltas and cached_tokens is None:
                            cached_tokens = output.usage.cached_tokens
                        yield output
                return
            except EngineDead:
                await _book_death(ward, patient, worker)
            except QueueFull as error:
                if not is_replay:
                    raise
                async with before(request.deadline):
                    await asyncio.sleep(error.retry_after_s)  # it was taken before: others have only been faster
                continue
            is_replay = True
            on_replay()
    finally:
        ward.quarantine.leave(patient)


async def ask(ward: Ward, request: Asked, call: Callable[[WorkerClient], Awaitable[_T]]) -> _T:
    """The one result of a request, which is asked again when the worker dies. Raises as `generate`."""
    ward.quarantine.check(request)
    patient = Patient(request)
    deadline = None if isinstance(request, DetokenizeRequest) else request.deadline
    try:
        while True:
            async with before(deadline):
                await ward.quarantine.enter(patient)
                worker = await ward.live_worker()
            try:
                return await call(worker)
            except EngineDead:
                await _book_death(ward, patient, worker)
    finally:
        ward.quarantine.leave(patient)


async def ask_about(ward: Ward, call: Callable[[WorkerClient], Awaitable[_T]]) -> _T:
    """The answer to a question that no request asks, and that cannot end a worker. Raises as `generate`."""
    while True:
        worker = await ward.live_worker()
        try:
            return await call(worker)
        except EngineDead:
            await worker.died.wait()


async def _book_death(ward: Ward, patient: Patient, worker: WorkerClient) -> None:
    """Raises what forbids the request to go on in another worker."""
    await worker.died.wait()  # an engine may fail some time before its process ends
    death = worker.death
    if death is None or death.kind is DeathKind.CLOSED:
        raise EngineDead("the server has stopped the model")
    try:
        ward.quarantine.died(patient, death)
    except PoisonousRequest:
        ward.blame_found()
        raise


def _resumed(request: Request, answers: list[_Answer]) -> Request:
    if not any(answer.token_ids or answer.is_finished for answer in answers):
        return request
    so_far = tuple(AnswerSoFar(tuple(answer.token_ids), answer.is_finished) for answer in answers)
    return replace(request, resumed=so_far)


def _book(answers: list[_Answer], output: RequestOutput) -> None:
    for delta in output.deltas:
        answers[delta.index].token_ids.extend(delta.token_ids)
        answers[delta.index].is_finished |= delta.finish_reason is not None


def _continued(output: RequestOutput, cached_tokens: int | None) -> RequestOutput:
    """The output as the first worker would have made it: what was told once is not told again."""
    if cached_tokens is None:
        return output
    return replace(output, usage=replace(output.usage, cached_tokens=cached_tokens))
