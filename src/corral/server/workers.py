"""The workers of all models: started, watched and ended as `admission` decides."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.config import ServerConfig
from corral.errors import CorralError, EngineDead, InsufficientMemory, QueueFull, ServerDraining
from corral.logs import about_no_request
from corral.model.memory import MemoryStatus
from corral.server.admission import Decision, Resident, Waiting, decide, relieve
from corral.server.clock import Clock, Timer
from corral.server.memory_budget import Budget, MemoryProbe, ProcessMemory, budget_of
from corral.server.model_needs import ReadNeeds
from corral.server.quarantine import Quarantine
from corral.server.slot import Slot, SlotState, Waiter
from corral.server.worker_life import WorkerLife
from corral.store.local_model import LocalModel
from corral.worker.client import WorkerClient

STATS_TIMEOUT_S = 2.0
MAX_LOADS = 5  # that a request which has begun waits for, if the worker dies while it loads
LOOK_S = 2.0  # between looks at the memory while several workers are there and one of them works
BUSY = "server busy, please try again.  maximum pending requests exceeded"  # Ollama's words, blanks and all

logger = logging.getLogger("corral.server")


@dataclass(frozen=True, slots=True)
class Ward:
    """See server/replay.py."""

    slot: Slot
    quarantine: Quarantine
    workers: Workers

    async def live_worker(self) -> WorkerClient:
        """Raises as Workers.await_worker."""
        return await self.workers.await_worker(self.slot)

    def blame_found(self) -> None:
        self.slot.num_deaths, self.slot.not_before = 0, 0.0
        self.workers.wake()


class Workers:
    """All slots, and the task that turns decisions into processes. Lives on one event loop."""

    def __init__(
        self, life: WorkerLife, config: ServerConfig, read_needs: ReadNeeds, probe: MemoryProbe, clock: Clock
    ) -> None:
        self._life = life
        self.config = config
        self._read_needs = read_needs
        self._probe = probe
        self._clock = clock
        self._slots: dict[Path, Slot] = {}
        self.quarantines: dict[Path, Quarantine] = {}
        self.num_pending = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._decider: asyncio.Task[None] | None = None
        self._look: Timer | None = None
        self._is_closed = False
        life.on_change = self.wake

    @property
    def slots(self) -> list[Slot]:
        """Those with a worker."""
        return [slot for slot in self._slots.values() if slot.has_memory]

    @property
    def lost(self) -> list[Slot]:
        return [slot for slot in self._slots.values() if slot.is_lost]

    def find(self, local: LocalModel) -> Slot | None:
        return self._slots.get(local.path)

    # ---- leases -----------------------------------------------------------------------------------------------

    async def acquire(self, local: LocalModel, num_ctx: int | None = None) -> Slot:
        """A lease on the model's slot; waits for its worker if need be.

        Raises:
            QueueFull: too many wait already, or the wait was too long.
            CorralError: what refused the load.
        """
        self._check_open()
        slot = self._slot_of(local)
        if slot.takes_leases:
            slot.grant(self._clock.time())
            return slot
        if self.num_pending >= self.config.max_pending:
            raise QueueFull(BUSY)
        await self._wait(slot, Waiter(asyncio.get_running_loop().create_future(), self._clock.time(), num_ctx))
        return slot

    async def _wait(self, slot: Slot, waiter: Waiter) -> None:
        """Until the waiter has a lease. Raises as `acquire`."""
        timers = (
            self._clock.call_later(self.config.load_timeout_s, lambda: self._give_up(slot, waiter)),
            self._clock.call_later(self.config.fair_wait_s, self.wake),
        )
        slot.waiters.append(waiter)
        self.num_pending += 1
        self.wake()
        try:
            await waiter.future
        except asyncio.CancelledError:
            # The lease, or the refusal, may have come in the very moment in which its taker was cancelled.
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.release(slot)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            slot.waiters.remove(waiter)
            self.num_pending -= 1
            self.wake()

    def ward(self, slot: Slot) -> Ward:
        """Where the requests of a lease find their worker, and the next one when it has died."""
        return Ward(slot, self.quarantines.setdefault(slot.local.path, Quarantine()), self)

    async def await_worker(self, slot: Slot) -> WorkerClient:
        """The slot's living worker; its caller has a lease on the slot, whose worker is restarted for that.

        Raises:
            QueueFull: it took too long.
            EngineDead: its worker has died in several loads, one after another.
            CorralError: what refused the load.
        """
        num_deaths = 0  # while it was loaded
        while not slot.is_ready:
            self._check_open()
            if slot.client is not None:
                self._life.bury(slot, slot.client)
            try:
                await self._wait(slot, Waiter(asyncio.get_running_loop().create_future(), self._clock.time()))
                slot.num_leases -= 1  # its caller has one
            except EngineDead:
                num_deaths += 1
                if num_deaths == MAX_LOADS:
                    raise
        return slot.worker

    def release(self, slot: Slot) -> None:
        """Gives a lease back."""
        slot.num_leases -= 1
        if slot.num_leases == 0:
            slot.idle_since = self._clock.time()
            self._life.start_expiry(slot)
            if slot.state is SlotState.ABSENT and not slot.is_pinned:
                slot.asked_at, slot.not_before = None, 0.0  # its worker has died; the next request loads it again
        self.wake()

    def unload(self, slot: Slot) -> None:
        """Lets it be ended as soon as nobody holds it."""
        slot.keep_alive_s = 0.0
        self._life.expire(slot)

    def pin(self, local: LocalModel) -> None:
        """Keeps the model loaded from now on; its worker is restarted when it dies."""
        slot = self._slot_of(local)
        slot.is_pinned = True
        if slot.state is SlotState.ABSENT:
            slot.asked_at = self._clock.time()
        self.wake()

    def _slot_of(self, local: LocalModel) -> Slot:
        slot = self._slots.get(local.path)
        if slot is None:
            slot = self._slots[local.path] = Slot(local, self.config.keep_alive_s, self.config.keep_alive_s)
            self._spawn(self._read(slot))
        return slot

    def _give_up(self, slot: Slot, waiter: Waiter) -> None:
        if not waiter.future.done():
            waited = f"{self.config.load_timeout_s:g} s"
            waiter.future.set_exception(QueueFull(f"{slot.name} could not be loaded within {waited}; try again later"))

    # ---- decisions --------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has changed: a decision is due."""
        self._changed.set()
        if self._decider is None and not self._is_closed:
            self._decider = asyncio.get_running_loop().create_task(self._decide_for_ever(), context=about_no_request())

    async def _decide_for_ever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._decide()
            except Exception as error:  # whoever waits must not wait for ever
                logger.exception("the decision about loads has failed")
                for slot in self._slots.values():
                    slot.fail_waiters(CorralError(f"the model could not be loaded: {error}"))

    async def _decide(self) -> None:
        if not self._line():
            self._open_all()
            self._forget_absent()
            self._watch_memory()
            return
        budget = await self.measure()
        line = self._line()  # some may have left meanwhile
        now = self._clock.time()
        for slot in line:
            if slot.is_read and slot.needs is None:  # it could not be read the last time
                slot.is_read = False
                self._spawn(self._read(slot))
        if self._may_start_unread(line):
            self._start(line[0], None)
            return
        if any(not slot.is_read for slot in self.slots if slot.state is SlotState.LOADING):
            return  # its header is being read; the end of that wakes us
        waiting = [
            Waiting(
                slot,
                wanted_bytes=slot.needs.least_bytes(slot.wanted_context),
                least_bytes=slot.needs.least_bytes(0),
                is_starved=now - (slot.waits_since or now) >= self.config.fair_wait_s,
            )
            for slot in line
            if slot.needs is not None
        ]
        self._apply(decide(self._residents(), waiting, budget, self.config.max_loaded_models), budget)

    def _line(self) -> list[Slot]:
        """The models that wait for memory, in the order in which they were first asked for."""
        now = self._clock.time()
        since = {slot: slot.waits_since for slot in self._slots.values() if slot.state is SlotState.ABSENT}
        line = [(at, slot) for slot, at in since.items() if at is not None and slot.not_before <= now]
        return [slot for _, slot in sorted(line, key=lambda entry: entry[0])]

    def _may_start_unread(self, line: list[Slot]) -> bool:
        """A first model alone has the machine to itself: its worker plans by what it finds, and no time is lost."""
        is_alone = len(line) == 1 and not self.slots and line[0].needs is None
        return is_alone and self.config.max_memory_bytes is None and self._life.engine.max_model_len is None

    def _residents(self) -> list[Resident[Slot]]:
        return [
            Resident(
                slot,
                num_bytes=slot.charged_bytes,
                releasable_bytes=slot.releasable_bytes,
                returning_bytes=slot.stats.kv_resident_bytes if slot.is_releasing else 0,
                last_used=slot.last_used,
                is_idle=slot.is_idle,
                is_pinned=slot.is_pinned,
                is_stopping=slot.state is SlotState.STOPPING,
                is_closed=slot.is_closed,
            )
            for slot in self.slots
        ]

    def _apply(self, decision: Decision[Slot], budget: Budget) -> None:
        # First, so that those who wait for a victim get no lease on it any more.
        for victim, slot in decision.evictions.items():
            self._life.stop(victim, f"evicted {victim.name} to make room for {slot.name}")
        for slot in self.slots:
            slot.is_closed = slot in decision.closed
            if slot.takes_leases and slot.waiters:
                slot.grant_waiters(self._clock.time())
        for slot, num_bytes in decision.refused.items():
            slot.asked_at = None
            slot.fail_waiters(self._refusal(slot, num_bytes, budget))
        for slot in decision.releases:
            self._life.release_kv(slot)
        for slot, num_bytes in decision.starts.items():
            self._start(slot, MemoryStatus(budget.total, num_bytes))
        self._watch_memory()

    def _start(self, slot: Slot, memory: MemoryStatus | None) -> None:
        self._life.start(slot, memory, lambda: [other for other in self.slots if other.is_idle and not other.is_pinned])

    def _refusal(self, slot: Slot, num_bytes: int, budget: Budget) -> Exception:
        """With the plan's numbers, for the most memory that it could have had."""
        from corral.model.plan import refusal  # imported when the needs were read

        if num_bytes >= 0 and slot.needs is not None:
            plan = slot.needs.plan(MemoryStatus(budget.total, num_bytes))
            if not plan.fits:
                return refusal(plan)
        pinned = ", ".join(other.name for other in self.slots if other.is_pinned)
        return InsufficientMemory(
            f"{slot.name} cannot be loaded beside the pinned models, which are never evicted: {pinned}"
        )

    # ---- memory -----------------------------------------------------------------------------------------------

    async def measure(self) -> Budget:
        """Looks at every worker's memory, and at the machine's."""
        pids = {slot: slot.pid for slot in self.slots if slot.pid is not None}

        def look() -> tuple[MemoryStatus, dict[Slot, ProcessMemory]]:
            return self._probe.machine(), {slot: self._probe.process(pid) for slot, pid in pids.items()}

        self._ask_stats()
        machine, measured = await asyncio.to_thread(look)
        for slot, memory in measured.items():
            if slot.pid == pids[slot]:
                slot.measured = memory
        private = sum(memory.private for memory in measured.values())
        return budget_of(machine, private, self.config.max_memory_bytes)

    async def refresh(self) -> None:
        """Brings the figures of all slots up to date; a worker that does not answer at once keeps its old ones."""
        await self.measure()
        if asking := {slot.asking for slot in self.slots if slot.asking is not None}:
            await asyncio.wait(asking, timeout=STATS_TIMEOUT_S)

    def _ask_stats(self) -> None:
        for slot in self.slots:
            if slot.state is SlotState.READY and (slot.asking is None or slot.asking.done()):
                slot.asking = self._spawn(self._stats(slot))

    async def _stats(self, slot: Slot) -> None:
        with contextlib.suppress(EngineDead):
            slot.stats = await slot.worker.stats()
            slot.stats_at = self._clock.time()

    def _watch_memory(self) -> None:
        """While several workers are there and one of them works, their KV caches may grow beyond the budget."""
        if self._look is None and len(self.slots) > 1 and any(slot.num_leases for slot in self.slots):
            self._look = self._clock.call_later(LOOK_S, self._start_relief)

    def _start_relief(self) -> None:
        self._spawn(self._relieve())

    async def _relieve(self) -> None:
        self._look = None
        budget = await self.measure()
        excess = sum(slot.measured.resident for slot in self.slots) - budget.ceiling
        decision = relieve(self._residents(), excess)
        for slot in decision.releases:
            self._life.release_kv(slot)
        for slot in decision.evictions:
            self._life.stop(slot, f"evicted {slot.name}: the others have grown, or the machine has less memory")
        self.wake()

    # ---- the rest ---------------------------------------------------------------------------------------------

    async def _read(self, slot: Slot) -> None:
        """Reads what the model needs, off the event loop."""
        try:
            slot.needs = await asyncio.to_thread(self._read_needs, slot.local.path, self._life.engine)
        except Exception as error:  # noqa: BLE001 - it is the answer of those who wait
            if slot.state is SlotState.ABSENT:
                self._life.failed(slot, error)
        finally:
            slot.is_read = True
            self.wake()

    def _open_all(self) -> None:
        """Nobody waits for memory: no worker is closed to anybody."""
        for slot in self.slots:
            slot.is_closed = False
            if slot.takes_leases and slot.waiters:
                slot.grant_waiters(self._clock.time())

    def _forget_absent(self) -> None:
        for path, slot in list(self._slots.items()):
            if not (slot.has_memory or slot.waiters or slot.num_leases or slot.is_pinned or slot.asked_at is not None):
                del self._slots[path]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, context=about_no_request())
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task

    def _check_open(self) -> None:
        if self._is_closed:
            raise ServerDraining("the server stops; it loads no more models")

    async def close(self) -> None:
        """Ends every worker and every wait. Idempotent."""
        self._is_closed = True
        tasks = [*self._tasks, *([self._decider] if self._decider is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for timer in (self._look, *(slot.expiry for slot in self._slots.values())):
            if timer is not None:
                timer.cancel()
        for slot in self._slots.values():
            slot.fail_waiters(ServerDraining("the server stopped before the model was loaded"))
        await self._life.close(list(self._slots.values()))
