"""What a lease gives, and what `ps` tells."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from corral.request import (
    Detokenized,
    DetokenizeRequest,
    EmbedRequest,
    EmbedResult,
    RenderedPrompt,
    Request,
    RequestOutput,
    RequestSize,
)
from corral.server import replay
from corral.server.exchange import Exchange
from corral.server.quotas import QuotaBook
from corral.server.tally import embed_tally_of, tally_of
from corral.store.local_model import LocalModel
from corral.worker.info import ModelInfo, WorkerStats

if TYPE_CHECKING:
    from corral.server.slot import Slot


class ServedModel:
    """A model that is loaded, held against eviction for as long as the lease lasts.

    Args:
        local: as it was asked for.
        ward: where its requests find a worker again when theirs has died.
        exchange: what it is held for.
        quotas: of all keys.
    """

    def __init__(self, local: LocalModel, slot: Slot, ward: replay.Ward, exchange: Exchange, quotas: QuotaBook) -> None:
        self.local = local
        self.exchange = exchange
        self.load_s = exchange.load_s  # this lease's share of the load: the time it waited for it
        self._quotas = quotas
        self._slot = slot
        self._ward = ward

    @property
    def pid(self) -> int:
        """The worker's process; raises EngineDead while one that has died is being replaced."""
        return self._slot.worker.pid

    async def info(self) -> ModelInfo:
        """What its worker says of the model, or the next one's if that has died."""
        return (await self._ward.live_worker()).info

    async def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of a request, as WorkerClient.generate gives them."""
        request = self.exchange.on_account(request)
        request, tally = await tally_of(self._quotas, self.exchange, request, self._measure)
        outputs = replay.generate(self._ward, request, tally.on_replay, tally.on_left)
        with tally:
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    tally.saw(output)
                    yield output

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """The vectors of the request's inputs, as WorkerClient.embed gives them."""
        request = self.exchange.embed_on_account(request)
        with await embed_tally_of(self._quotas, self.exchange, request, self._measure) as tally:
            result = await replay.ask(self._ward, request, lambda worker: worker.embed(request))
            tally.saw(result)
        return result

    async def _measure(self, request: Request | EmbedRequest) -> RequestSize:
        return await replay.ask(self._ward, request, lambda worker: worker.measure(request))

    async def render(self, request: Request) -> RenderedPrompt:
        """What the request's prompt would be, as WorkerClient.render gives it."""
        return await replay.ask(self._ward, request, lambda worker: worker.render(request))

    async def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """The texts of token ids, as WorkerClient.detokenize gives them."""
        return await replay.ask(self._ward, request, lambda worker: worker.detokenize(request))

    async def stats(self) -> WorkerStats:
        """Figures of its worker, or of the next one if that has died."""
        return await replay.ask_about(self._ward, lambda worker: worker.stats())


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A model that has memory now.

    Args:
        local: the model by whose name the worker was asked for first.
        info, stats: of the last look; zeros while it loads.
        expires_at: when it will be unloaded if nobody asks for it; None: never.
        memory_bytes: all it takes, measured; bytes, as those that follow.
        kv_used_bytes: what the KV pool has touched; it grows up to `kv_limit_bytes`.
        private_bytes: of memory_bytes, what the machine would have free again without the worker.
        adapters_in_use: names of models with LoRA adapters that requests use it by.
        stats_age_s: since its worker has told `stats`, or since it is ready, if it has told none yet.
        num_quarantined: requests that are refused because they have ended workers.
    """

    local: LocalModel
    info: ModelInfo
    stats: WorkerStats
    expires_at: datetime | None
    state: Literal["ready", "stopping", "loading"]
    memory_bytes: int
    weights_bytes: int
    kv_used_bytes: int
    kv_limit_bytes: int
    is_pinned: bool = False
    num_leases: int = 0
    private_bytes: int = 0
    adapters_in_use: tuple[str, ...] = ()
    stats_age_s: float = 0.0
    num_quarantined: int = 0
