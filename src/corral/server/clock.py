"""Time as the server's parts see it, so that tests can turn it by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from corral.logs import about_no_request

LONGEST_S = 1e8  # an event loop takes no inf


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def time(self) -> float:
        """Seconds since some moment; never goes back."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Calls back on the event loop."""


class LoopClock:
    """The running event loop's own."""

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        loop = asyncio.get_running_loop()
        return loop.call_later(min(delay_s, LONGEST_S), callback, context=about_no_request())
