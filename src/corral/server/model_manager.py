"""The models of a server: found by name, loaded on demand, held while they are used, unloaded when they are not."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

from corral.config import EngineConfig, ServerConfig
from corral.errors import InvalidRequest, TenantQueueFull
from corral.server.caller import Role
from corral.server.clock import Clock, LoopClock
from corral.server.deadlines import before
from corral.server.exchange import Exchange
from corral.server.memory_budget import MemoryProbe, SystemProbe
from corral.server.metrics.books import Books
from corral.server.model_names import ModelNames, check_permission
from corral.server.model_needs import ReadNeeds, read_needs
from corral.server.quarantine import Quarantine
from corral.server.quotas import QuotaBook
from corral.server.served_model import RunningModel, ServedModel
from corral.server.slot import Slot, SlotState
from corral.server.worker_life import WorkerLife
from corral.server.workers import Workers
from corral.store.local_model import LocalModel
from corral.worker.client import OnPlan, OnProgress
from corral.worker.info import ModelInfo
from corral.worker.process import WORKER_COMMAND

logger = logging.getLogger("corral.server")

_FOREVER_S = 100 * 365 * 86400.0  # a keep_alive beyond this is one for ever


class ModelManager:
    """Lives on one event loop.

    Args:
        names: what can be asked for.
        engine: settings of every worker; the KV pool's size follows from the memory at its load, unless it is set.
        config: keep-alive, limits of memory and queue.
        say: gets a line for every load, eviction and unload.
        command, read_needs, probe, clock: the worker process, what is known of a file, of the machine, and the time;
            tests have their own.
        quotas: what the keys may still use.
    """

    def __init__(
        self,
        names: ModelNames,
        engine: EngineConfig | None = None,
        config: ServerConfig | None = None,
        *,
        say: Callable[[str], None] = logger.info,
        command: Sequence[str] = WORKER_COMMAND,
        read_needs: ReadNeeds = read_needs,
        probe: MemoryProbe | None = None,
        clock: Clock | None = None,
        quotas: QuotaBook | None = None,
    ) -> None:
        self._names = names
        self._clock = clock or LoopClock()
        config = config or ServerConfig()
        engine = self.engine = engine or EngineConfig()
        self.books = Books()
        self._life = WorkerLife(engine, config, command, self._clock, say, self.books)
        self._workers = Workers(self._life, config, read_needs, probe or SystemProbe(), self._clock)
        self._num_pending_of: Counter[str] = Counter()  # by whose they are
        self._max_pending_of_key = config.max_pending_per_key or max(1, config.max_pending // 2)
        self._say = say
        self.quotas = quotas or QuotaBook()

    def lookup(self, name: str) -> LocalModel:
        """What `name` means; nothing is loaded.

        Raises:
            ModelNotFound: "model 'x' not found".
        """
        return self._names.lookup(name)

    @property
    def served_names(self) -> Sequence[LocalModel]:
        """Everything that can be asked for. May read many small files: call it on a thread."""
        return self._names.all()

    @property
    def num_pending(self) -> int:
        """Requests that wait for their model to be loaded."""
        return self._workers.num_pending

    @asynccontextmanager
    async def lease(
        self,
        local: LocalModel,
        exchange: Exchange | None = None,
        *,
        keep_alive: float | None = None,
        num_ctx: int | None = None,
    ) -> AsyncIterator[ServedModel]:
        """The model, loaded if need be, and held against eviction while the block runs.

        Args:
            exchange: what it is wanted for; None is the server's own wish.
            keep_alive: seconds that it stays when nobody holds it any more: 0 is not at all, inf or below 0 for ever;
                None leaves what the last one said.
            num_ctx: the context that the caller would like; a worker that is there already is never loaded anew for it.

        Raises:
            ModelNotFound: the caller's key is not for it.
            QuotaExceeded: the caller's key has used what it may.
            QueueFull: too many wait already, or the wait was too long.
            DeadlineExceeded: the exchange's deadline came first.
            InsufficientMemory: it can never fit; the text has the numbers.
            CorralError: what else refused the load.
        """
        exchange = exchange or Exchange()
        check_permission(exchange.caller, local)
        exchange.model = local.name
        with self.quotas.admit(exchange):
            async with self._lease(local, exchange, keep_alive, num_ctx) as model:
                yield model

    @asynccontextmanager
    async def _lease(
        self, local: LocalModel, exchange: Exchange, keep_alive: float | None, num_ctx: int | None
    ) -> AsyncIterator[ServedModel]:
        if not exchange.caller.role.includes(Role.ADMIN):
            keep_alive = None  # how long a model stays is for all who use it
        started = self._clock.time()
        was_there = (slot := self._workers.find(local)) is not None and slot.takes_leases
        async with before(exchange.deadline):
            with nullcontext() if was_there else self._pending(exchange.caller.owner):
                slot = await self._workers.acquire(local, num_ctx)
        if local.adapters:
            slot.adapter_uses[local.name] += 1
        try:
            if keep_alive is not None:
                slot.keep_alive_s = _keep_alive(keep_alive)
            if num_ctx is not None and slot.client is not None and num_ctx > slot.info.max_model_len:
                self._say(
                    f"{local.name} was asked for a context of {num_ctx:,} tokens; it has {slot.info.max_model_len:,}, "
                    "as memory, the model or --max-model-len (OLLAMA_CONTEXT_LENGTH) allow"
                )
            exchange.load_s = 0.0 if was_there else self._clock.time() - started
            yield ServedModel(local, slot, self._workers.ward(slot), exchange, self.quotas)
        finally:
            if local.adapters:
                slot.adapter_uses[local.name] -= 1
            self._workers.release(slot)

    @contextmanager
    def _pending(self, tenant: str) -> Iterator[None]:
        """Somebody waits for a model. Raises TenantQueueFull where too many of the same key do."""
        if tenant and self._num_pending_of[tenant] >= self._max_pending_of_key:
            waiting = f"{self._num_pending_of[tenant]} requests of this key wait for their models to be loaded"
            raise TenantQueueFull(f"{waiting}; try again later")
        self._num_pending_of[tenant] += 1
        try:
            yield
        finally:
            self._num_pending_of[tenant] -= 1
            if not self._num_pending_of[tenant]:
                del self._num_pending_of[tenant]

    async def load(
        self,
        local: LocalModel,
        *,
        pin: bool = False,
        on_progress: OnProgress | None = None,
        on_plan: OnPlan | None = None,
    ) -> None:
        """Loads a model before anybody asks for it; a pinned one is never unloaded or evicted.

        Args:
            on_progress, on_plan: as of WorkerClient.start; of this load.

        Raises:
            CorralError: as `lease`.
        """
        self._life.watchers[local.path] = (on_progress, on_plan)
        try:
            async with self.lease(local):
                if pin:
                    self._workers.pin(local)
        finally:
            self._life.watchers.pop(local.path, None)

    async def unload(self, local: LocalModel) -> None:
        """Ends its worker as soon as nobody holds it; nothing happens if it has none.

        Raises:
            InvalidRequest: it is pinned.
        """
        slot = self._workers.find(local)
        if slot is None:
            return
        if slot.is_pinned:
            raise InvalidRequest(
                f"{slot.name} is pinned: the server was started to serve it, and keeps it loaded until it ends"
            )
        self._workers.unload(slot)

    def running(self) -> list[RunningModel]:
        """The models that have memory now, longest expiry first. Figures are of the last look: see `refresh`."""
        now, at = self._clock.time(), datetime.now(UTC)
        slots = sorted(self._workers.slots, key=lambda slot: -_remaining_s(slot, now))
        return [_running(slot, now, at, self._workers.quarantines.get(slot.local.path)) for slot in slots]

    def stalled(self) -> list[str]:
        """The models whose worker has been at one step for half of the time after which it is ended."""
        return [slot.name for slot in self._workers.slots if self._life.is_stalled(slot)]

    def lost(self) -> list[str]:
        """The pinned models whose workers died, or could not be loaded, more than once in a row and are not back."""
        return [slot.name for slot in self._workers.lost]

    def reconfigure(self, config: ServerConfig) -> None:
        """Obeys new settings from now on; models that are loaded stay until others need their room."""
        self._workers.config = config
        self._life.reconfigure(config)
        for slot in self._workers.slots:
            if slot.keep_alive_s == slot.default_keep_alive_s:  # no request has said otherwise
                slot.keep_alive_s = config.keep_alive_s
            slot.default_keep_alive_s = config.keep_alive_s
            if slot.is_idle:
                self._life.start_expiry(slot)
        self._workers.wake()

    async def refresh(self) -> None:
        """Measures anew what `running` tells."""
        await self._workers.refresh()

    async def close(self) -> None:
        """Ends all workers. Idempotent."""
        await self._workers.close()


def _keep_alive(seconds: float) -> float:
    return math.inf if seconds < 0 or seconds > _FOREVER_S or math.isnan(seconds) else seconds


def _remaining_s(slot: Slot, now: float) -> float:
    """Seconds until it would be unloaded if nobody asked for it from now on."""
    if slot.is_pinned:
        return math.inf
    return slot.keep_alive_s - (now - slot.idle_since if slot.is_idle else 0.0)


def _running(slot: Slot, now: float, at: datetime, quarantine: Quarantine | None) -> RunningModel:
    remaining_s = _remaining_s(slot, now)
    states = {SlotState.LOADING: "loading", SlotState.STOPPING: "stopping"}
    info = slot.client.info if slot.client is not None else _info_before_load(slot)
    return RunningModel(
        local=slot.local,
        info=info,
        stats=slot.stats,
        expires_at=None if math.isinf(remaining_s) else at + timedelta(seconds=max(0.0, remaining_s)),
        state=states.get(slot.state, "ready"),  # type: ignore[arg-type]
        memory_bytes=slot.memory_bytes,
        weights_bytes=info.weights_bytes,
        kv_used_bytes=slot.stats.kv_resident_bytes,
        kv_limit_bytes=info.kv_limit_bytes,
        is_pinned=slot.is_pinned,
        num_leases=slot.num_leases,
        private_bytes=slot.measured.private,
        adapters_in_use=tuple(sorted(name for name, count in slot.adapter_uses.items() if count)),
        stats_age_s=max(0.0, now - max(slot.stats_at, slot.ready_since)),
        num_quarantined=quarantine.num_refused if quarantine is not None else 0,
    )


def _info_before_load(slot: Slot) -> ModelInfo:
    """What can be told of a model whose worker has told nothing yet."""
    return ModelInfo(slot.name, "", 0, 0, 0, "", 0, 0, 0.0)
