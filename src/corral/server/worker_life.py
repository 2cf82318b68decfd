"""A worker's life: loaded into its slot, watched, given up. Says each event in one line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.config import EngineConfig, ServerConfig
from corral.errors import CorralError, EngineDead, InsufficientMemory
from corral.logs import about_no_request
from corral.model.memory import size_text
from corral.server.clock import LONGEST_S, Clock
from corral.server.metrics.books import Books
from corral.server.slot import Slot, SlotState
from corral.worker.client import OnPlan, OnProgress, WorkerClient

if TYPE_CHECKING:
    from corral.model.memory import MemoryStatus
    from corral.server.clock import Timer

RESTART_DELAYS_S = (0.0, 1.0, 5.0, 15.0, 60.0)  # the last one holds from there on
STABLE_S = 300.0  # a worker that has lived this long, or has answered anything, starts the delays afresh
LOOK_S = 5.0  # between looks at what a worker does
_FLOPS_PER_BYTE = 4  # of weights and token: two for each of the two weights in a byte
_SLOW_FLOPS = 10e9  # of a thread in a second

logger = logging.getLogger("corral.server")

Say = Callable[[str], None]
FindIdle = Callable[[], list[Slot]]


class WorkerLife:
    """Starts and ends the processes of slots; `on_change` is called after every change of a slot."""

    def __init__(
        self,
        engine: EngineConfig,
        config: ServerConfig,
        command: Sequence[str],
        clock: Clock,
        say: Say,
        books: Books,
    ) -> None:
        self.engine = engine
        self._command = command
        self._clock = clock
        self._say = say
        self._books = books
        self.reconfigure(config)
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_change: Callable[[], None] = lambda: None
        self.watchers: dict[Path, tuple[OnProgress | None, OnPlan | None]] = {}  # of loads that somebody looks at

    def reconfigure(self, config: ServerConfig) -> None:
        """Obeys new settings from now on."""
        self._stall_timeout_s = config.load_timeout_s
        self._step_timeout_s = config.step_timeout_s

    def start(self, slot: Slot, memory: MemoryStatus | None, find_idle: FindIdle) -> None:
        """Loads the slot's model, into `memory` if its needs are known; else the worker plans by what is free.

        Args:
            find_idle: whom to end if the machine has less memory than was thought.
        """
        slot.state = SlotState.LOADING
        slot.loading = self._spawn(self._load(slot, self._config_for(slot, memory), find_idle))

    def stop(self, slot: Slot, text: str) -> None:
        """Ends its worker, which nobody holds; says `text` and what is given back."""
        self._say(f"{text}; {size_text(slot.memory_bytes)} are given back")
        if slot.state is SlotState.LOADING and slot.loading is not None:
            slot.state = SlotState.STOPPING
            slot.loading.cancel()
        elif slot.client is not None:
            slot.state = SlotState.STOPPING
            self._spawn(self._end(slot, slot.client))

    def start_expiry(self, slot: Slot) -> None:
        """Lets the idle time of a worker that nobody holds run."""
        if slot.expiry is not None:
            slot.expiry.cancel()
            slot.expiry = None
        if slot.state is SlotState.READY and not slot.is_pinned and not math.isinf(slot.keep_alive_s):
            slot.expiry = self._clock.call_later(slot.keep_alive_s, lambda: self.expire(slot))

    def expire(self, slot: Slot) -> None:
        """Unloads a worker that nobody holds and that is not pinned."""
        if slot.is_idle and slot.state is SlotState.READY and not slot.is_pinned:
            idle = f"idle for {slot.keep_alive_s:g} s" if slot.keep_alive_s else "it was to go as soon as it is idle"
            self.stop(slot, f"unloaded {slot.name}: {idle}")

    def release_kv(self, slot: Slot) -> None:
        """Lets an idle worker give back the memory of its KV cache."""
        if slot.client is not None:
            slot.is_releasing = slot.has_released = True
            self._spawn(self._release(slot, slot.client))

    async def close(self, slots: Sequence[Slot]) -> None:
        """Ends everything, loads too."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        clients = [slot.client for slot in slots if slot.client is not None]
        await asyncio.gather(*(client.close() for client in clients))
        for slot in slots:
            slot.forget_worker()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, context=about_no_request())
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task

    def _config_for(self, slot: Slot, memory: MemoryStatus | None) -> EngineConfig:
        """The engine's settings with a KV pool that fits into `memory`."""
        if memory is None or slot.needs is None:
            return self.engine
        if self.engine.kv_cache_bytes is not None:
            return slot.needs.engine
        return replace(slot.needs.engine, kv_cache_bytes=slot.needs.plan(memory).pool_bytes)

    async def _load(self, slot: Slot, engine: EngineConfig, find_idle: FindIdle) -> None:
        started = self._clock.time()
        try:
            try:
                client = await self._start_worker(slot, engine)
            except InsufficientMemory:
                # Another program has taken memory since the decision; whoever is idle here makes room, once.
                victims = [(idle, idle.client) for idle in find_idle() if idle.client is not None]
                if not victims:
                    raise
                for victim, _ in victims:
                    victim.state = SlotState.STOPPING
                    self._say(f"evicted {victim.name} to make room for {slot.name}: the machine has less memory free")
                await asyncio.gather(*(self._end(*victim) for victim in victims))
                client = await self._start_worker(slot, engine)
        except asyncio.CancelledError:
            slot.forget_worker()
            self.on_change()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer of those who wait
            self.failed(slot, error)
            return
        self._loaded(slot, client, self._clock.time() - started)

    async def _start_worker(self, slot: Slot, engine: EngineConfig) -> WorkerClient:
        """Raises what WorkerClient.start raises, and CorralError when the load makes no progress for too long."""
        starting = asyncio.ensure_future(self._start_client(slot, engine, lambda: renew()))
        is_stalled = False
        timer: Timer | None = None

        def stall() -> None:
            nonlocal is_stalled
            is_stalled = True
            starting.cancel()

        def renew() -> None:
            nonlocal timer
            if timer is not None:
                timer.cancel()
            timer = self._clock.call_later(self._stall_timeout_s, stall)

        renew()
        try:
            return await starting
        except asyncio.CancelledError:
            if not is_stalled:
                starting.cancel()
                await asyncio.wait({starting})
                raise
            raise CorralError(f"{slot.name} made no progress for {self._stall_timeout_s:g} s while it loaded") from None
        finally:
            if timer is not None:
                timer.cancel()

    async def _start_client(self, slot: Slot, engine: EngineConfig, renew: Callable[[], None]) -> WorkerClient:
        tell_progress, tell_plan = self.watchers.get(slot.local.path, (None, None))

        def on_progress(done: int, total: int) -> None:
            renew()
            if tell_progress is not None:
                tell_progress(done, total)

        def on_spawn(pid: int) -> None:
            slot.pid = pid

        return await WorkerClient.start(
            slot.local.path,
            engine,
            on_progress=on_progress,
            on_plan=tell_plan,
            on_spawn=on_spawn,
            command=self._command,
        )

    def _loaded(self, slot: Slot, client: WorkerClient, load_s: float) -> None:
        now = self._clock.time()
        slot.client, slot.state = client, SlotState.READY
        slot.load_s, slot.ready_since, slot.last_used = load_s, now, now
        slot.asked_at = slot.loading = None
        self._say(
            f"loaded {slot.name} in {load_s:.1f} s: {size_text(client.info.weights_bytes)} of weights, "
            f"a context of {client.info.max_model_len:,} tokens"
        )
        self._books.loaded(slot.name, load_s)
        slot.idle_since = now
        slot.grant_waiters(now)
        if not slot.num_leases:
            self.start_expiry(slot)
        self._spawn(self._watch(slot, client))
        self._spawn(self._end_if_hung(slot, client))
        self.on_change()

    def failed(self, slot: Slot, error: Exception) -> None:
        """A load has come to nothing; `error` is what those who wait get."""
        slot.forget_worker()
        slot.asked_at = None
        if isinstance(error, CorralError):
            self._say(f"{slot.name} could not be loaded: {error}")
        else:
            logger.error("%s could not be loaded", slot.name, exc_info=error)
        slot.fail_waiters(error)
        if slot.is_pinned:
            self._ask_again(slot)
        self.on_change()

    async def _watch(self, slot: Slot, client: WorkerClient) -> None:
        """Until the worker dies, or is ended by us."""
        await client.died.wait()
        self.bury(slot, client)

    def bury(self, slot: Slot, client: WorkerClient) -> None:
        """Gives a dead worker up, and asks for the next one if somebody needs it. Idempotent."""
        if slot.client is not client or slot.state is SlotState.STOPPING or client.death is None:
            return
        logger.error("the worker of %s has ended: %s", slot.name, client.death.cause)
        self._books.died(slot.name, client.death.kind.value)
        if client.has_answered or self._clock.time() - slot.ready_since > STABLE_S:
            slot.num_deaths = 0  # it was of use: the next one need not wait
        slot.forget_worker()
        if slot.is_pinned or slot.num_leases:
            self._ask_again(slot)
        self._spawn(client.close())
        self.on_change()

    def is_stalled(self, slot: Slot) -> bool:
        """Its worker has been at one step, or one prompt, for half of the time after which it is ended."""
        return slot.client is not None and slot.client.doing().busy_s > self._most_busy_s(slot.client) / 2

    def _most_busy_s(self, client: WorkerClient) -> float:
        """The longest that a step may take: as set, or what the largest one takes on a slow machine."""
        num_tokens = self.engine.max_num_batched_tokens
        flops = _FLOPS_PER_BYTE * client.info.weights_bytes * num_tokens
        return max(self._step_timeout_s, flops / (_SLOW_FLOPS * max(1, client.info.num_threads)))

    async def _end_if_hung(self, slot: Slot, client: WorkerClient) -> None:
        """Until the worker dies: ends it when it comes back neither from a step nor to its messages."""
        while not client.died.is_set():
            most_s = self._most_busy_s(client)
            timeout_s = min(most_s, LONGEST_S)
            try:
                async with asyncio.timeout(timeout_s):
                    await client.ping()
            except TimeoutError:
                await client.kill_hung(f"it has answered nothing for {most_s:g} s")
            except EngineDead:
                return
            if (busy_s := client.doing().busy_s) > most_s:
                await client.kill_hung(f"it has been at one step for {busy_s:.1f} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, timeout_s / 4)):
                    await client.died.wait()

    def _ask_again(self, slot: Slot) -> None:
        delay_s = RESTART_DELAYS_S[min(slot.num_deaths, len(RESTART_DELAYS_S) - 1)]
        slot.num_deaths += 1
        slot.asked_at = self._clock.time()
        slot.not_before = slot.asked_at + delay_s
        if delay_s:
            self._clock.call_later(delay_s, self.on_change)

    async def _end(self, slot: Slot, client: WorkerClient) -> None:
        await client.close()
        slot.forget_worker()
        self.on_change()

    async def _release(self, slot: Slot, client: WorkerClient) -> None:
        try:
            await client.release_kv()
            slot.stats = await client.stats()
        except EngineDead:
            return  # the watch sees to it
        finally:
            slot.is_releasing = False
            self.on_change()
