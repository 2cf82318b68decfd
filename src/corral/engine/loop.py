"""The engine on a thread of its own: a bounded queue in, callbacks out."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from corral.config import EngineConfig
from corral.engine.core import EngineCore
from corral.engine.embedder import Embedder, EmbeddingResult, EmbeddingSpec
from corral.engine.intake import Intake
from corral.engine.output import SequenceOutput, StepOutput
from corral.engine.sequence import SequenceGroupSpec
from corral.engine.stats import EngineStats
from corral.errors import CorralError, DeadlineExceeded, EngineDead, InvalidRequest, ServerDraining
from corral.request import QueuePlace

_log = logging.getLogger(__name__)

StepResult = tuple[SequenceOutput, ...] | CorralError
OnStep = Callable[[StepResult], None]
OnEmbedded = Callable[[EmbeddingResult], None]
OnPlace = Callable[[QueuePlace], None]

PLACES_S = 1.0  # between two looks at the queue, to tell those who wait of it
NEW_PLACES_S = 0.05  # the same when there are new ones in it


class _Live:
    """A submitted request that has not had its last callback."""

    __slots__ = ("deadline", "num_unfinished", "on_place", "on_step", "position", "tenant")

    def __init__(
        self, spec: SequenceGroupSpec | EmbeddingSpec, on_step: OnStep | OnEmbedded, num_sequences: int
    ) -> None:
        self.on_step: Callable[[Any], None] = on_step  # takes the results of its kind of request, and errors
        self.num_unfinished = num_sequences
        self.tenant = spec.tenant
        self.deadline = spec.deadline
        self.on_place: OnPlace | None = None
        self.position: int | None = None  # in the queue, as it was told last


class EngineLoop:
    """Runs an EngineCore. All methods may be called from any thread, from callbacks too.

    `on_step` of a request is called on the engine thread, at most once a step, with that step's outputs of the request,
    or once with a CorralError that ends it. Every request gets exactly one end: each of its n sequences an output with
    a finish_reason, or one error. A callback must not block (hand over to a queue and return): all streams wait for it.
    One that raises costs its own request only.

    Args:
        core: nobody else touches it from now on.
        config: `max_queue`, `max_queue_per_key` and `kv_idle_release_s`.
        embedder: steps in turns with the core; as the core, nobody else's.
        on_idle: called on the engine's thread when it has had nothing to do for `kv_idle_release_s`.
        clock: monotonic seconds, for deadlines and estimates.
    """

    def __init__(
        self,
        core: EngineCore,
        config: EngineConfig,
        *,
        embedder: Embedder | None = None,
        on_idle: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core = core
        self._embedder = embedder
        self._on_idle = on_idle
        self._idle_release_s = config.kv_idle_release_s
        self._clock = clock
        self._idle_s = 0.0  # so far
        self._places_at = 0.0  # when the queue was looked at last
        self._changed = threading.Condition()  # guards everything below
        self._commands: deque[Callable[[], None]] = deque()
        self._live: dict[str, _Live] = {}
        self._intake = Intake(core.max_running, config, lambda: clock() - self._idle_s)
        self._deadlines: list[tuple[float, str]] = []  # a heap; requests that have ended may still be in it
        self._is_draining = False
        self._is_closing = False
        self._death: EngineDead | None = None
        self._released: list[threading.Event] = []  # of those who wait for memory to be given back
        self._num_lost = 0  # requests that the death ended
        self._thread = threading.Thread(target=self._run, name="corral-engine", daemon=True)
        self._thread.start()

    # ---- any thread -------------------------------------------------------------------------------------------

    def submit(self, spec: SequenceGroupSpec, on_step: OnStep, on_place: OnPlace | None = None) -> None:
        """Queue a request; its sequences count as n.

        A request is taken while fewer than max_num_seqs + max_queue sequences are unfinished, and fewer than
        max_num_seqs + max_queue_per_key of its tenant.

        Args:
            on_place: told where it waits: before this method returns, and on the engine's thread as on_step when that
                has changed. It is not called for what starts at once.

        Raises:
            InvalidRequest: it can never run (as EngineCore.check says), or its id is in use.
            QueueFull: the queue is full, or its tenant's share, or it would start after its deadline; `retry_after_s`
                is judged by the recent rate.
            DeadlineExceeded: nobody waits for it any more.
            ServerDraining: `drain` was called.
            EngineDead: the engine has died or is closed.
            In all cases `on_step` is never called.
        """
        self._core.check(spec)
        live = _Live(spec, on_step, spec.num_unfinished)
        live.on_place = on_place
        place = self._queue(spec, live, lambda: self._core.add(spec))
        if place is not None and on_place is not None:
            on_place(place)

    def embed(self, spec: EmbeddingSpec, on_embedded: OnEmbedded) -> None:
        """Queue texts to be embedded; they count as one sequence. `on_embedded` is called once, as on_step is.

        Raises:
            InvalidRequest, QueueFull, DeadlineExceeded, ServerDraining, EngineDead: as `submit` does.
        """
        embedder = self._embedder
        if embedder is None:
            raise InvalidRequest("this engine has no embeddings")
        embedder.check(spec)
        self._queue(spec, _Live(spec, on_embedded, 1), lambda: embedder.add(spec))

    def _queue(
        self, spec: SequenceGroupSpec | EmbeddingSpec, live: _Live, command: Callable[[], None]
    ) -> QueuePlace | None:
        request_id, tenant, place = spec.request_id, spec.tenant, None
        with self._changed:
            if self._death is not None:
                raise EngineDead(str(self._death))
            if self._is_draining or self._is_closing:
                raise ServerDraining("the engine finishes what it has and takes no new requests")
            left_s = None if live.deadline is None else live.deadline - self._clock()
            if left_s is not None and left_s <= 0:
                raise _deadline_exceeded()
            self._intake.check_bounds(tenant)
            if request_id in self._live:
                raise InvalidRequest(f"request id {request_id!r} is in use", param="request_id")
            if isinstance(spec, SequenceGroupSpec):
                place = self._intake.place(tenant, spec.weight)
                if left_s is not None:
                    self._intake.check_wait(place, left_s)
                self._intake.queued(tenant)
                live.position = None if place is None else place.position
            self._live[request_id] = live
            self._intake.take(tenant, live.num_unfinished)
            if live.deadline is not None:
                self._add_deadline(live.deadline, request_id)
            self._send(command)
        return place

    def _add_deadline(self, deadline: float, request_id: str) -> None:
        heapq.heappush(self._deadlines, (deadline, request_id))
        if len(self._deadlines) > 64 + 2 * len(self._live):
            timed = [(live.deadline, request_id) for request_id, live in self._live.items()]
            self._deadlines = [(deadline, request_id) for deadline, request_id in timed if deadline is not None]
            heapq.heapify(self._deadlines)

    def abort(self, request_id: str) -> None:
        """End a request before the next step; its blocks are free then. Unknown and finished ids are ignored."""
        with self._changed:
            if request_id in self._live:
                self._send(lambda: self._abort(request_id))

    def finish(self, request_id: str, index: int) -> None:
        """End one of a request's sequences with STOP before the next step: its text has met a stop string."""
        with self._changed:
            if request_id in self._live:
                self._send(lambda: self._deliver(self._core.finish(request_id, index)))

    def stats(self) -> EngineStats:
        """Figures of this moment."""
        return self._core.stats()

    def release_free_blocks(self) -> None:
        """Give the memory of all free blocks back, and return when that is done; a dead engine has none left."""
        is_done = threading.Event()

        def release() -> None:
            self._core.release_all_free()
            is_done.set()

        with self._changed:
            if self._death is not None or self._is_closing:
                return
            self._released.append(is_done)
            self._send(release)
        is_done.wait()
        with self._changed:
            self._released.remove(is_done)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Refuse new requests and wait until those in flight have ended; False when the time ran out first.

        Raises:
            EngineDead: the engine died before they had.
        """
        with self._changed:
            self._is_draining = True
            done = self._changed.wait_for(lambda: self._death is not None or not self._live, timeout_s)
            if self._num_lost:
                raise EngineDead(str(self._death))
            return done

    def close(self) -> None:
        """Abort what is left, stop the thread and wait for it. Idempotent."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._death is None and not self._is_closing

    def _send(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._changed.notify_all()

    # ---- the engine thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._await_work():
                self._apply_commands()
                if self._core.has_work:
                    self._deliver_step(self._core.step())
                    self._look_at_queue()
                if self._embedder is not None and self._embedder.has_work:
                    self._deliver_embeddings(self._embedder.step(is_shared=self._core.has_work))
            self._abort_all()
            self._die(EngineDead("the engine is closed"))
        except BaseException as error:  # noqa: BLE001 - whatever ends this thread must wake every waiter
            _log.exception("the engine has died")
            self._die(EngineDead(f"the engine has died: {type(error).__name__}: {error}"))

    def _await_work(self) -> bool:
        """Block until there is something to do; False when the loop is to close. Costs no CPU while it blocks."""
        if not self._has_work() and not self._has_commands():
            self._core.check_idle()
            self._core.release_unused()
            if self._embedder is not None:
                self._embedder.release()
            since = self._clock()
            if not self._wait_for_command(min(max(0.0, self._idle_release_s), threading.TIMEOUT_MAX)):
                self._core.release_all_free()
                self._on_idle()
                self._wait_for_command(None)
            self._idle_s += self._clock() - since
        return not self._is_closing

    def _has_work(self) -> bool:
        return self._core.has_work or (self._embedder is not None and self._embedder.has_work)

    def _has_commands(self) -> bool:
        return bool(self._commands) or self._is_closing

    def _wait_for_command(self, timeout_s: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(self._has_commands, timeout_s)

    def _apply_commands(self) -> None:
        due = []
        with self._changed:
            commands, self._commands = self._commands, deque()
            self._intake.begin_step()
            while self._deadlines and self._deadlines[0][0] <= self._clock():
                due.append(heapq.heappop(self._deadlines))
        for command in commands:
            command()
        for deadline, request_id in due:
            live = self._live.get(request_id)
            if live is not None and live.deadline == deadline:
                self._expire(request_id)

    def _expire(self, request_id: str) -> None:
        """Nobody waits for the request any more: neither its turn nor its next token."""
        if self._embedder is None or not self._embedder.abort(request_id):
            self._core.abort(request_id)
        self._end_with(request_id, _deadline_exceeded())

    def _look_at_queue(self) -> None:
        """Tells those who wait of their places, now and then."""
        if not self._core.has_waiting and not self._intake.has_lines:
            with self._changed:
                self._intake.skip_step(self._core.num_running)
            return
        lines = self._core.lines()
        with self._changed:
            has_new = self._intake.end_step(lines)
        now = self._clock()
        if now - self._places_at < (NEW_PLACES_S if has_new else PLACES_S):
            return
        self._places_at = now
        for position, request_id in self._core.waiting_in_turn(lines):
            live = self._live[request_id]
            if live.on_place is not None and live.position != position:
                live.position = position
                self._call(request_id, live.on_place, self._intake.place_at(position))

    def _deliver_step(self, result: StepOutput) -> None:
        self._deliver(result.outputs)
        for request_id, error in result.failures.items():
            _log.error("%s", error)
            self._end_with(request_id, error)

    def _deliver_embeddings(self, results: dict[str, EmbeddingResult]) -> None:
        for request_id, result in results.items():
            self._end_with(request_id, result)

    def _deliver(self, outputs: list[SequenceOutput]) -> None:
        by_request: dict[str, list[SequenceOutput]] = {}
        for output in outputs:
            by_request.setdefault(output.request_id, []).append(output)
        for request_id, its_outputs in by_request.items():
            live = self._live[request_id]
            num_ended = sum(output.finish_reason is not None for output in its_outputs)
            if num_ended:
                self._book_ends(request_id, live, num_ended)
            self._call(request_id, live.on_step, tuple(its_outputs))

    def _book_ends(self, request_id: str, live: _Live, count: int) -> None:
        with self._changed:
            live.num_unfinished -= count
            self._intake.book_ends(live.tenant, count)
            if live.num_unfinished == 0:
                del self._live[request_id]
                self._changed.notify_all()

    def _end_with(self, request_id: str, result: EmbeddingResult) -> None:
        live = self._live[request_id]
        self._book_ends(request_id, live, live.num_unfinished)
        self._call(request_id, live.on_step, result)

    def _call(self, request_id: str, callback: Callable[[Any], None], result: object) -> None:
        try:
            callback(result)
        except Exception:  # noqa: BLE001 - a caller's fault must not end the other streams
            _log.exception("the callback of request %s failed; the request is aborted", request_id)
            self.abort(request_id)

    def _abort(self, request_id: str) -> None:
        if self._embedder is not None and self._embedder.abort(request_id):
            self._end_with(request_id, CorralError("the request was given up before its texts were embedded"))
        else:
            self._deliver(self._core.abort(request_id))

    def _abort_all(self) -> None:
        self._apply_commands()
        for request_id in list(self._live):
            self._abort(request_id)

    def _die(self, death: EngineDead) -> None:
        """Wake every waiter with the error and fail all later calls at once."""
        with self._changed:
            self._death = death
            waiters = list(self._live.items())
            self._num_lost = len(waiters)
            self._live.clear()
            self._commands.clear()
            for event in self._released:
                event.set()
            self._changed.notify_all()
        for request_id, live in waiters:
            self._call(request_id, live.on_step, EngineDead(str(death)))


def _deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("the time that the request was given is over")
