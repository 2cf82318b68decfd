"""Adds up in memory what keys use, and writes it to the database every few seconds and at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from corral.errors import StorageError
from corral.request import EmbedResult, RequestOutput, Usage
from corral.server.exchange import Exchange, Generation
from corral.server.quotas import DayUse, QuotaBook
from corral.server.usage.store import UsageStore
from corral.server.usage.totals import Cell, Totals
from corral.server.windows import day_name, day_of

logger = logging.getLogger("corral.server")

FLUSH_S = 5.0  # what a crash loses at most; also how late servers of one database know of each other
_UNAUTHORIZED = 401  # is nobody's use
_CLIENT_GONE = 499


class UsageRecorder:
    """An Observer. Lives on one event loop.

    Args:
        book: is told what keys have used on this day besides what it knows.
        retention_days: how many days are kept; 0 keeps all.
        wall: Unix seconds; tests have their own.
    """

    def __init__(
        self, store: UsageStore, book: QuotaBook, retention_days: int = 0, wall: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._book = book
        self._retention_days = retention_days
        self._wall = wall
        self._pending: dict[Cell, Totals] = {}
        self._names: dict[str, str] = {}
        self._written: dict[str, DayUse] = {}  # by this server on the day below, by key
        self._written_day = 0
        self._swept_day = 0
        self._lock = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def on_output(self, exchange: Exchange, generation: Generation, output: RequestOutput | EmbedResult) -> None:
        before = generation.usage
        after = Usage(output.prompt_tokens) if isinstance(output, EmbedResult) else output.usage
        # A request that goes on in another worker is taken there anew, which is no use.
        prompt = max(0, after.prompt_tokens - before.prompt_tokens)
        cached = max(0, after.cached_tokens - before.cached_tokens)
        completion = max(0, after.completion_tokens - before.completion_tokens)
        if prompt or cached or completion:
            totals = self._totals_of(exchange)
            totals.prompt_tokens += prompt
            totals.cached_tokens += cached
            totals.completion_tokens += completion

    def on_end(self, exchange: Exchange) -> None:
        if not exchange.is_counted:
            is_refused = exchange.method == "POST" and exchange.status >= 400 and not exchange.management
            if is_refused and exchange.status not in (_UNAUTHORIZED, _CLIENT_GONE):
                self._totals_of(exchange).refusals += 1
            return
        latency_s = time.monotonic() - exchange.started
        firsts = [each.first_token for each in exchange.generations if each.first_token is not None]
        ttft_s = min(firsts) - exchange.started if firsts else 0.0
        is_error = (exchange.status >= 400 and exchange.status != _CLIENT_GONE) or bool(exchange.cause)
        self._totals_of(exchange).add(
            Totals(
                requests=1,
                errors=int(is_error),
                latency_s=latency_s,
                latency_max_s=latency_s,
                answered=len(firsts[:1]),
                ttft_s=ttft_s,
                ttft_max_s=ttft_s,
            )
        )

    async def start(self) -> None:
        """Reads what was used today, and goes on writing."""
        with suppress(StorageError):  # it is logged, and tried again
            await self.flush()
        self._task = asyncio.ensure_future(self._run())

    async def close(self) -> None:
        """Writes what is left. Idempotent."""
        self._stopping.set()
        if self._task is not None:
            await self._task
            self._task = None
            with suppress(StorageError):
                await self.flush()

    async def flush(self) -> None:
        """Writes what was used since the last time. Raises StorageError; then it is kept for the next time."""
        # Who asks may go away in the middle; what was written must not be written again.
        await asyncio.shield(asyncio.ensure_future(self._flush()))

    async def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._stopping.wait()
            with suppress(StorageError):
                await self.flush()

    async def _flush(self) -> None:
        async with self._lock:
            if not self._pending and not self._store.database.is_there:
                return  # a file is not made for nothing
            today = day_of(self._wall())
            keep_from = None
            if self._retention_days and today > self._swept_day:
                keep_from = day_name(today - self._retention_days + 1)
            taken, self._pending = self._pending, {}
            try:
                used = await asyncio.to_thread(self._store.add, taken, dict(self._names), day_name(today), keep_from)
            except BaseException:
                for cell, totals in taken.items():
                    self._pending.setdefault(cell, Totals()).add(totals)
                raise
            self._swept_day = max(today, self._swept_day)
            self._book.set_elsewhere(today, self._without_own(today, taken, used))

    def _without_own(self, today: int, taken: dict[Cell, Totals], used: dict[str, DayUse]) -> dict[str, DayUse]:
        """What the database has for each key of today, but for what this server has written: the book knows of that."""
        if today != self._written_day:
            self._written, self._written_day = {}, today
        name = day_name(today)
        for cell, totals in taken.items():
            if cell.day == name:
                before = self._written.get(cell.key_id, DayUse())
                tokens = totals.prompt_tokens + totals.completion_tokens
                self._written[cell.key_id] = DayUse(before.requests + totals.requests, before.tokens + tokens)
        elsewhere = {}
        for key_id, all_of_it in used.items():
            own = self._written.get(key_id, DayUse())
            elsewhere[key_id] = DayUse(all_of_it.requests - own.requests, all_of_it.tokens - own.tokens)
        return elsewhere

    def _totals_of(self, exchange: Exchange) -> Totals:
        cell = Cell(day_name(day_of(self._wall())), exchange.caller.key_id, exchange.model)
        totals = self._pending.get(cell)
        if totals is None:
            totals = self._pending[cell] = Totals()
            self._names[exchange.caller.key_id] = exchange.caller.name
        return totals
