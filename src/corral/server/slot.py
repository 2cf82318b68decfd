"""One model's place in the server: its worker if it has one, who holds it, who waits for it. No I/O."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corral.errors import EngineDead
from corral.server.memory_budget import ProcessMemory
from corral.server.model_needs import USEFUL_CONTEXT
from corral.store.local_model import LocalModel
from corral.worker.info import ModelInfo, WorkerStats

if TYPE_CHECKING:
    from corral.server.clock import Timer
    from corral.server.model_needs import Needs
    from corral.worker.client import WorkerClient


class SlotState(enum.Enum):
    ABSENT = "absent"  # no worker; if somebody waits, the line for memory has it
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(eq=False, slots=True)
class Waiter:
    """A request that waits for its model; the future's result is the lease itself.

    Args:
        arrived: by the server's clock.
        num_ctx: the context it would like, in tokens.
    """

    future: asyncio.Future[None]
    arrived: float
    num_ctx: int | None = None


@dataclass(eq=False, slots=True)
class Slot:
    """A model and all that is known of it.

    Args:
        local: the first model that was asked for with this file; others may share the worker.
        default_keep_alive_s: idle time until it is unloaded, in seconds; inf for ever.
        keep_alive_s: the same as the last request that told one would have it.
        asked_at: when it was put into the line without a request, to be pinned or restarted.
        not_before: no restart before this time; set by deaths.
        is_closed: busy, and no new leases are given, because another model has waited too long.
        has_released: the KV cache was given back since the last lease.
        needs: by the file's header; None until it has been read, which `is_read` tells, or if it could not be.
        measured: at the last look.
        stats_at: when the worker has told `stats`, by the server's clock.
        adapter_uses: leases of models with LoRA adapters, by their names.
        loading, asking: the tasks that load it, and that fetch `stats`.
    """

    local: LocalModel
    default_keep_alive_s: float
    keep_alive_s: float
    state: SlotState = SlotState.ABSENT
    client: WorkerClient | None = None
    pid: int | None = None
    waiters: deque[Waiter] = field(default_factory=deque)
    num_leases: int = 0
    last_used: float = 0.0
    idle_since: float = 0.0
    load_s: float = 0.0
    is_pinned: bool = False
    is_closed: bool = False
    has_released: bool = False
    is_releasing: bool = False
    asked_at: float | None = None
    not_before: float = 0.0
    num_deaths: int = 0
    ready_since: float = 0.0
    needs: Needs | None = None
    is_read: bool = False
    measured: ProcessMemory = field(default_factory=ProcessMemory)
    stats: WorkerStats = field(default_factory=WorkerStats)
    stats_at: float = 0.0
    adapter_uses: Counter[str] = field(default_factory=Counter)
    expiry: Timer | None = None
    loading: asyncio.Task[None] | None = None
    asking: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.local.name

    @property
    def info(self) -> ModelInfo:
        return self.worker.info

    @property
    def worker(self) -> WorkerClient:
        """Raises EngineDead while there is none."""
        if self.client is None:
            raise EngineDead(f"the worker of {self.name} has died")
        return self.client

    @property
    def takes_leases(self) -> bool:
        return self.is_ready and not self.is_closed

    @property
    def is_ready(self) -> bool:
        """It has a worker that lives."""
        return self.state is SlotState.READY and self.client is not None and self.client.is_alive

    @property
    def is_lost(self) -> bool:
        """It is to be there, and its workers have died or could not be loaded more than once in a row."""
        return self.is_pinned and not self.is_ready and self.num_deaths > 1

    @property
    def has_memory(self) -> bool:
        return self.state is not SlotState.ABSENT

    @property
    def is_idle(self) -> bool:
        """It could be ended without anybody noticing; a load that nobody waits for any more, too."""
        if self.state is SlotState.LOADING:
            return not self.waiters and self.asked_at is None
        return self.state is SlotState.READY and self.num_leases == 0

    @property
    def waits_since(self) -> float | None:
        """When it was put into the line for memory; None if nobody wants it."""
        since = [waiter.arrived for waiter in self.waiters if not waiter.future.done()]
        if self.asked_at is not None:
            since.append(self.asked_at)
        return min(since, default=None)

    @property
    def wanted_context(self) -> int:
        """Tokens for which others give way."""
        return max([USEFUL_CONTEXT, *(waiter.num_ctx or 0 for waiter in self.waiters)])

    @property
    def fixed_bytes(self) -> int:
        if self.needs is not None:
            return self.needs.fixed_bytes
        return self.client.info.weights_bytes if self.client is not None else 0

    @property
    def memory_bytes(self) -> int:
        """What it really takes: by the operating system, or what it has mapped and will read, if that is more."""
        if self.client is None:
            return self.measured.resident
        return max(self.measured.resident, self.client.info.weights_bytes + self.stats.kv_resident_bytes)

    @property
    def charged_bytes(self) -> int:
        """What the budget counts: what it takes, and room for a conversation besides weights and work memory."""
        if self.needs is None:
            return self.memory_bytes
        limit = self.client.info.kv_limit_bytes if self.client is not None else 1 << 60
        floor = min(self.needs.kv_bytes(USEFUL_CONTEXT), limit)
        return max(self.memory_bytes, self.fixed_bytes + max(self.stats.kv_resident_bytes, floor))

    @property
    def releasable_bytes(self) -> int:
        """What the KV cache would give back of the charge."""
        if self.needs is None or self.has_released or self.state is not SlotState.READY or self.num_leases:
            return 0
        kept = self.fixed_bytes + min(self.needs.kv_bytes(USEFUL_CONTEXT), self.info.kv_limit_bytes)
        return max(0, min(self.stats.kv_resident_bytes, self.charged_bytes - kept))

    def grant(self, now: float) -> None:
        """A new lease."""
        self.num_leases += 1
        self.last_used = now
        self.has_released = False
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None

    def grant_waiters(self, now: float) -> None:
        """Everybody who waits gets a lease."""
        for waiter in self.waiters:
            if not waiter.future.done():
                self.grant(now)
                waiter.future.set_result(None)

    def fail_waiters(self, error: Exception) -> None:
        for waiter in self.waiters:
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def forget_worker(self) -> None:
        """There is none any more."""
        self.state = SlotState.ABSENT
        self.client = self.pid = self.loading = None
        self.is_closed = self.is_releasing = self.has_released = False
        self.keep_alive_s = self.default_keep_alive_s
        self.measured, self.stats = ProcessMemory(), WorkerStats()
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
