"""Threads for work that many tenants want done, such as the preparation of their prompts."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from corral.engine.ledger import Account, Ledger

_T = TypeVar("_T")


class _Tenant(Account):
    __slots__ = ("num_running", "waiting")

    def __init__(self, name: str, counter: float) -> None:
        super().__init__(name, counter)
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.num_running = 0


class FairPool:
    """Tenants take turns by the time that their work has taken; within one it is first come, first served.

    Lives on one event loop.

    Args:
        num_threads: pieces of work that go on at once.
        name: of the threads.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._num_free = num_threads
        self._tenants: Ledger[_Tenant] = Ledger(_Tenant)

    async def run(self, tenant: str, weight: float, work: Callable[[], _T]) -> _T:
        """What `work` returns or raises, on a thread, when it is its turn."""
        account = self._tenants.enter(tenant, weight)
        try:
            await self._take_place(account)
            started = time.monotonic()
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
            finally:
                account.charge(time.monotonic() - started)
                self._free(account)
        finally:
            self._tenants.leave(account)

    async def _take_place(self, account: _Tenant) -> None:
        if self._num_free:
            self._num_free -= 1
            account.num_running += 1
            return
        future = asyncio.get_running_loop().create_future()
        account.waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future in account.waiting:
                account.waiting.remove(future)
            else:  # it was given the place in this very moment
                self._free(account)
            raise

    def _free(self, account: _Tenant) -> None:
        """Passes a place on."""
        account.num_running -= 1
        waiting = [each for each in self._tenants.open.values() if each.waiting]
        if not waiting:
            self._num_free += 1
            return
        following = min(waiting, key=lambda each: (each.counter, each.num_running / each.weight))
        following.num_running += 1
        future = following.waiting.popleft()
        if not future.done():
            future.set_result(None)
