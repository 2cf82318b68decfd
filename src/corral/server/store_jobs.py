"""Long work of the store (pull, push, create, blobs) in a thread of its own, and what it tells on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from corral.errors import QueueFull, ServerDraining
from corral.limits import MAX_STORE_JOBS
from corral.store.status import OnStatus, Status

_T = TypeVar("_T")


class Abandoned(Exception):
    """Raised in the job's thread at its next word; what has arrived stays for the next try."""


class StoreJobs:
    """Counts the jobs under way."""

    def __init__(self, max_jobs: int = MAX_STORE_JOBS) -> None:
        self._max_jobs = max_jobs
        self._num_jobs = 0
        self._transfers: WeakSet[StoreJob[Any]] = WeakSet()

    def start(self, work: Callable[[OnStatus], _T], *, is_transfer: bool = False) -> StoreJob[_T]:
        """Starts `work` in a thread. It must be called on the event loop.

        Args:
            is_transfer: it can take hours, and goes on where it stood when it is asked for again.

        Raises:
            QueueFull: too many run already.
        """
        if self._num_jobs >= self._max_jobs:
            raise QueueFull(f"{self._num_jobs} pulls, pushes and creates are under way; try again later")
        self._num_jobs += 1
        job = StoreJob(work, self._ended)
        if is_transfer:
            self._transfers.add(job)
        return job

    def interrupt(self) -> None:
        """Ends the transfers: the server stops, and they would hold that up."""
        for job in list(self._transfers):
            job.interrupt()

    def _ended(self) -> None:
        self._num_jobs -= 1


class StoreJob(Generic[_T]):
    """One job. Its words are joined while nobody reads them: of a layer, only the latest figures count."""

    def __init__(self, work: Callable[[OnStatus], _T], on_end: Callable[[], None]) -> None:
        self._work = work
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._result: asyncio.Future[_T] = self._loop.create_future()
        self._told: list[Status] = []
        self._news = asyncio.Event()
        self._is_abandoned = threading.Event()
        # A daemon: a source that hangs must not hold up the end of the process; the store survives worse.
        threading.Thread(target=self._run, name="store-job", daemon=True).start()

    async def statuses(self) -> AsyncGenerator[Status, None]:
        """What the job tells, until it has ended; raises what it raised. Leaving early abandons it."""
        try:
            while True:
                self._news.clear()
                told, self._told = self._told, []
                for status in told:
                    yield status
                if self._told:
                    continue
                if self._result.done():
                    self._result.result()
                    return
                await self._news.wait()
        finally:
            self.abandon()

    async def result(self) -> _T:
        """What the job returned; raises what it raised. Cancellation abandons it."""
        try:
            return await asyncio.shield(self._result)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Ends the job at its next word."""
        self._is_abandoned.set()

    def interrupt(self) -> None:
        """Ends it, and tells whoever waits for it how to go on."""
        self.abandon()
        self._finish(ServerDraining("the server stops; what has arrived stays: ask again to go on from there"))

    def _run(self) -> None:
        try:
            outcome: _T | BaseException = self._work(self._on_status)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever reads the job
            outcome = error
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who could care
            self._loop.call_soon_threadsafe(self._end, outcome)

    def _on_status(self, status: Status) -> None:
        if self._is_abandoned.is_set():
            raise Abandoned
        self._loop.call_soon_threadsafe(self._tell, status)

    def _tell(self, status: Status) -> None:
        last = self._told[-1] if self._told else None
        if last is not None and status.digest and (last.status, last.digest) == (status.status, status.digest):
            self._told[-1] = status
        elif last != status:
            self._told.append(status)
        self._news.set()

    def _end(self, outcome: _T | BaseException) -> None:
        self._on_end()
        self._finish(outcome)

    def _finish(self, outcome: _T | BaseException) -> None:
        if self._result.done():
            return
        if isinstance(outcome, BaseException):
            self._result.set_exception(outcome)
            self._result.exception()  # an abandoned job has no reader; then its silence is no mistake
        else:
            self._result.set_result(outcome)
        self._news.set()


def chunks_from_loop(chunks: AsyncGenerator[bytes, None], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """An asynchronous stream as a plain iterator, for a job's thread; it raises what the stream raises."""

    async def following() -> bytes | None:
        return await anext(chunks, None)

    while (chunk := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield chunk
