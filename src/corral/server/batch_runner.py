"""Runs batches side by side, few lines at once in all, so that interactive requests go first.

The database says what state a batch is in, its folder which lines have an answer: whoever starts next goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import ASGIApp

from corral.errors import CorralError, KeyRefused, StorageError
from corral.logs import about_no_request
from corral.server import batch_files
from corral.server.batch_store import BatchStore
from corral.server.caller import Caller
from corral.server.exchange import REQUEST_ID_HEADER
from corral.server.in_process import post
from corral.server.lifecycle import Lifecycle

logger = logging.getLogger("corral.server")

NUM_AT_ONCE = 4  # lines of all batches
MAX_BACK_OFF_S = 30.0
MAX_DEATHS = 5  # of the model's worker, within one line
LOCK_RETRY_S = 5.0
CLOSE_TIMEOUT_S = 5.0
SAVE_PERIOD_S = 1.0  # between counts that clients see
_BUSY = ("queue_full", "key_queue_full", "server_draining", "engine_dead")
_OVER_QUOTA = ("rate_limit_exceeded", "insufficient_quota")  # without Retry-After it is too large for the key for ever


@dataclass(slots=True)
class _Run:
    """A batch under way."""

    owner: str
    batch_id: str
    endpoint: str
    expires_at: float
    output_seconds: int | None
    folder: Path
    lines: Iterator[batch_files.Line] = field(default_factory=lambda: iter(()))
    counts: dict[str, int] = field(default_factory=dict)
    saved_at: float = 0.0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)  # it is being cancelled
    refusal: str = ""  # why its owner's key does not work any more

    @property
    def is_expired(self) -> bool:
        return time.time() >= self.expires_at


class BatchRunner:
    """Lives on the server's event loop.

    Args:
        app: the routes, without the checks of who may call them.
        caller_of: in whose name an owner's batches run; raises KeyRefused where the owner may not any more.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: BatchStore,
        lifecycle: Lifecycle,
        caller_of: Callable[[str], Caller] = lambda owner: Caller(owner=owner),
    ) -> None:
        self._app = app
        self._store = store
        self._lifecycle = lifecycle
        self._caller_of = caller_of
        self._runs: dict[str, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(NUM_AT_ONCE)
        self._owns = asyncio.Event()  # no other server of this data folder runs batches
        self._held = contextlib.ExitStack()
        self._is_owning = False

    def start(self) -> None:
        """Goes on with what an earlier server left, if there is any."""
        if self._store.has_work():
            self.wake()

    def wake(self) -> None:
        """There may be a new batch."""
        if not self._is_owning:
            self._is_owning = True
            self._spawn(self._own())
        self._spawn(self._start_new())

    def cancel(self, batch_id: str) -> None:
        """The batch's row says that it is being cancelled."""
        if (run := self._runs.get(batch_id)) is not None:
            run.stopped.set()

    async def close(self) -> None:
        """Lets answers that have come reach the disk, and stops."""
        self._lifecycle.stopping.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._held.close)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, context=about_no_request())
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _own(self) -> None:
        """Takes the lock of the data folder: two servers would both run a batch."""
        try:
            while not await asyncio.to_thread(lambda: self._held.enter_context(self._store.lock_if_free())):
                logger.warning("another server of this data folder runs its batches")
                if await self._first_of(self._lifecycle.stopping, seconds=LOCK_RETRY_S):
                    return
        except OSError:
            logger.exception("the batches' folder cannot be locked; it is tried again with the next batch")
            self._is_owning = False
            return
        try:
            await asyncio.to_thread(self._store.sweep)
        except (CorralError, OSError):
            logger.exception("what no file and no batch owns could not be removed")
        self._owns.set()

    async def _start_new(self) -> None:
        owning, stopping = (
            asyncio.ensure_future(self._owns.wait()),
            asyncio.ensure_future(self._lifecycle.stopping.wait()),
        )
        await asyncio.wait({owning, stopping}, return_when=asyncio.FIRST_COMPLETED)
        owning.cancel()
        stopping.cancel()
        if not self._owns.is_set():
            return
        try:
            unfinished = await asyncio.to_thread(self._store.unfinished)
        except CorralError:
            logger.exception(
                "the batches cannot be read; they go on with the next one, or when the server starts again"
            )
            return
        for owner, batch, seconds in unfinished:
            batch_id = batch["id"]
            if batch_id not in self._runs:
                folder = self._store.work_folder / batch_id
                run = _Run(owner, batch_id, batch["endpoint"], batch["expires_at"], seconds, folder)
                self._runs[batch_id] = run
                self._spawn(self._run(run, batch["status"]))

    async def _run(self, run: _Run, status: str) -> None:
        try:
            await self._run_to_end(run, status)
        except (CorralError, OSError) as error:
            logger.exception("batch %s failed", run.batch_id)
            await self._fail(run, f"the server could not go on: {error}")
        except Exception:
            logger.exception("batch %s failed", run.batch_id)
            await self._fail(run, "the server could not go on; its log says why")
        finally:
            self._runs.pop(run.batch_id, None)

    async def _fail(self, run: _Run, message: str, code: str = "server_error") -> None:
        errors = [{"code": code, "message": message, "param": None, "line": None}]
        with contextlib.suppress(CorralError, OSError):  # what cannot be told now goes on at the next start
            await self._end(run, "failed", errors=errors)

    async def _run_to_end(self, run: _Run, status: str) -> None:
        if status == "validating":
            total, errors = await asyncio.to_thread(batch_files.validate, run.folder, run.endpoint)
            if errors:
                await self._change(run, "failed", {"total": total}, {"errors": {"object": "list", "data": errors}})
                await asyncio.to_thread(batch_files.remove, run.folder)
                return
            status = await self._change(run, "in_progress", {"total": total})
        if status == "cancelling":
            run.stopped.set()
        if status in ("in_progress", "cancelling"):
            done, run.counts = await asyncio.to_thread(batch_files.recover, run.folder)
            run.lines = batch_files.remaining(run.folder, run.endpoint, done)
            async with asyncio.TaskGroup() as group:
                for _ in range(NUM_AT_ONCE):
                    group.create_task(self._run_lines(run))
            if self._lifecycle.is_draining:
                return
            if run.refusal:
                await self._fail(run, run.refusal, "invalid_api_key")
                return
            is_whole = await self._next_line(run) is None
            if not is_whole and not run.stopped.is_set():
                run.counts["failed"] += await asyncio.to_thread(batch_files.expire, run.folder, run.endpoint)
                await self._end(run, "expired")
                return
            status = await self._change(run, "finalizing", run.counts)
        await self._end(run, "cancelled" if status == "cancelling" else "completed")

    async def _end(self, run: _Run, status: str, errors: list[dict[str, Any]] | None = None) -> None:
        """Publishes what was answered, says how it ended, and removes the folder."""
        found = await asyncio.to_thread(self._store.publish_outputs, run.owner, run.batch_id, run.output_seconds)
        fields: dict[str, Any] = {**found, **({"errors": {"object": "list", "data": errors}} if errors else {})}
        await self._change(run, status, run.counts, fields)
        await asyncio.to_thread(batch_files.remove, run.folder)

    async def _change(
        self, run: _Run, status: str, counts: dict[str, int] | None = None, fields: dict[str, Any] | None = None
    ) -> str:
        """Moves the batch on; what it is now, which is "cancelling" if that came first."""
        return await asyncio.to_thread(self._store.move_on, run.batch_id, status, counts or {}, fields or {})

    async def _next_line(self, run: _Run) -> batch_files.Line | None:
        async with run.reading:
            return await asyncio.to_thread(next, run.lines, None)

    async def _run_lines(self, run: _Run) -> None:
        while not (self._lifecycle.is_draining or run.stopped.is_set() or run.is_expired or run.refusal):
            async with self._turns:
                if (line := await self._next_line(run)) is None:
                    return
                custom_id, body = line
                answer = await self._ask(run, body)
            if answer is None:
                # It was taken and not answered: it comes again after a restart, or counts as not run.
                run.lines = _chain(line, run.lines)
                return
            is_good = await asyncio.to_thread(batch_files.append_answer, run.folder, custom_id, *answer)
            run.counts["completed" if is_good else "failed"] += 1
            if time.monotonic() - run.saved_at >= SAVE_PERIOD_S:
                run.saved_at = time.monotonic()
                await asyncio.to_thread(self._store.save_counts, run.batch_id, run.counts)

    async def _ask(self, run: _Run, body: dict[str, Any]) -> tuple[int, Any, str] | None:
        """Status, body and request id of the answer; waits while the server is busy; None when the batch is to stop."""
        encoded = msgspec.json.encode(body)
        back_off_s, num_deaths = 0.5, 0
        while True:
            try:
                caller = self._caller_of(run.owner)
            except KeyRefused as error:
                run.refusal = str(error)
                return None
            except StorageError:  # whether it may go on cannot be read now
                status, headers, answer = 503, dict[bytes, bytes](), {"error": {"code": "queue_full"}}
            else:
                status, headers, reply = await post(self._app, run.endpoint, encoded, caller)
                answer = await asyncio.to_thread(msgspec.json.decode, reply)
            code = _error_code(answer)
            num_deaths += code == "engine_dead"
            may_pass = code in _BUSY or (code in _OVER_QUOTA and b"retry-after" in headers)
            if status not in (429, 503) or not may_pass or num_deaths > MAX_DEATHS:
                return status, answer, headers.get(REQUEST_ID_HEADER, b"").decode("ascii")
            back_off_s = min(MAX_BACK_OFF_S, 2 * back_off_s)
            wait_s = max(back_off_s, _retry_after(headers))
            self._turns.release()  # other keys' lines go on while this one waits for its own quota
            try:
                is_over = await self._first_of(self._lifecycle.stopping, run.stopped, seconds=wait_s)
            finally:
                await self._turns.acquire()
            if is_over or run.is_expired:
                return None

    async def _first_of(self, *events: asyncio.Event, seconds: float | None = None) -> bool:
        """Waits; True as soon as one of the events has come."""
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return bool(done)


def _chain(line: batch_files.Line, lines: Iterator[batch_files.Line]) -> Iterator[batch_files.Line]:
    yield line
    yield from lines


def _error_code(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("code")) if isinstance(error, dict) else ""


def _retry_after(headers: dict[bytes, bytes]) -> float:
    text = headers.get(b"retry-after", b"")
    return min(MAX_BACK_OFF_S, float(text)) if text.isdigit() else 0.0
