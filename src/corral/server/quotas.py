"""How much each key has used of what it may: requests, tokens, and how many of its requests are under way. No I/O.

Minutes slide; days are UTC's. Tokens are reserved before a request goes to its worker, as many as it can come to at
most, and what it did not use is given back at its end: however many requests run side by side, what is computed for a
key never exceeds its quota. A reservation counts in every minute until it has ended.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from corral.errors import QuotaExceeded
from corral.server.caller import Caller, Quotas

MINUTE_S = 60.0
DAY_S = 86400
_NOTHING = Quotas()


class _Window:
    """Amounts of the last minute and of today.

    An amount that is open counts as of now until it is closed.
    """

    def __init__(self) -> None:
        self._closed: deque[tuple[float, int]] = deque()
        self._of_minute = 0
        self._day = 0
        self._of_day = 0
        self._open = 0

    def used(self, now: float) -> tuple[int, int]:
        """In the last minute, and today."""
        while self._closed and self._closed[0][0] <= now - MINUTE_S:
            self._of_minute -= self._closed.popleft()[1]
        if (day := int(now // DAY_S)) != self._day:
            self._day, self._of_day = day, 0
        return self._of_minute + self._open, self._of_day + self._open

    def open(self, amount: int) -> None:
        self._open += amount

    def close(self, now: float, amount: int, used: int) -> None:
        """`used` of an open `amount` stays."""
        self._open -= amount
        self.used(now)
        self._of_day += used
        if used:
            self._of_minute += used
            self._closed.append((now, used))

    def free_in_s(self, now: float, amount: int) -> float:
        """Until so much of the last minute has passed; a second where it hangs on what is under way."""
        for at, of_then in self._closed:
            amount -= of_then
            if amount <= 0:
                return at + MINUTE_S - now
        return 1.0


@dataclass(eq=False, slots=True)
class _Account:
    requests: _Window = field(default_factory=_Window)
    tokens: _Window = field(default_factory=_Window)
    num_under_way: int = 0


@dataclass(eq=False, slots=True)
class Reservation:
    """Tokens that a request may use; what it has used is written into `used` before its end."""

    num_tokens: int
    used: int = 0


class QuotaBook:
    """The accounts of all keys, of one server; they begin anew with it.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @contextlib.contextmanager
    def request(self, caller: Caller, *, is_new: bool = True) -> Iterator[None]:
        """A request under way.

        Args:
            is_new: it counts as a request; otherwise as one that goes on.

        Raises:
            QuotaExceeded: too many.
        """
        quotas = caller.quotas
        if quotas == _NOTHING:
            yield
            return
        account = self._account(caller)
        if quotas.max_concurrent is not None and account.num_under_way >= quotas.max_concurrent:
            raise QuotaExceeded(
                f"{account.num_under_way} requests of this key are under way; "
                f"it may have {quotas.max_concurrent} at once",
                kind="requests",
                retry_after_s=1,
            )
        if is_new:
            now = self._clock()
            self._check(account.requests, now, 1, (quotas.requests_per_minute, quotas.requests_per_day), "requests")
            account.requests.open(1)
            account.requests.close(now, 1, 1)
        account.num_under_way += 1
        try:
            yield
        finally:
            account.num_under_way -= 1

    def limits_tokens(self, caller: Caller) -> bool:
        """Whether the tokens of the caller's requests must be reserved."""
        return caller.quotas.tokens_per_minute is not None or caller.quotas.tokens_per_day is not None

    def tokens_left(self, caller: Caller) -> int:
        """The most that a reservation could have now; 0 or less if it can have none."""
        quotas, (minute, day) = caller.quotas, self._account(caller).tokens.used(self._clock())
        of_minute = math.inf if quotas.tokens_per_minute is None else quotas.tokens_per_minute - minute
        of_day = math.inf if quotas.tokens_per_day is None else quotas.tokens_per_day - day
        return int(min(of_minute, of_day, 1 << 60))

    @contextlib.contextmanager
    def tokens(self, caller: Caller, num_tokens: int) -> Iterator[Reservation]:
        """Reserves as many tokens as a request can come to at most.

        Raises:
            QuotaExceeded: that is more than is left.
        """
        quotas, account = caller.quotas, self._account(caller)
        limits = (quotas.tokens_per_minute, quotas.tokens_per_day)
        self._check(account.tokens, self._clock(), num_tokens, limits, "tokens")
        account.tokens.open(num_tokens)
        reservation = Reservation(num_tokens)
        try:
            yield reservation
        finally:
            account.tokens.close(self._clock(), num_tokens, min(reservation.used, num_tokens))

    def _account(self, caller: Caller) -> _Account:
        return self._accounts.setdefault(caller.owner, _Account())

    def _check(
        self, window: _Window, now: float, wanted: int, limits: tuple[int | None, int | None], kind: str
    ) -> None:
        minute, day = window.used(now)
        of_minute, of_day = limits
        asks = "" if kind == "requests" else f"this request may come to {wanted}; give a smaller max_tokens, or "
        if of_day is not None and day + wanted > of_day:
            left_s = math.ceil(DAY_S - now % DAY_S)
            raise QuotaExceeded(
                f"this key may have {of_day} {kind} a day, and has used or reserved {day}; "
                f"{asks}try again after midnight UTC",
                kind=kind,
                retry_after_s=left_s,
                is_of_day=True,
            )
        if of_minute is not None and minute + wanted > of_minute:
            wait_s = math.ceil(window.free_in_s(now, minute + wanted - of_minute))
            raise QuotaExceeded(
                f"this key may have {of_minute} {kind} a minute, and has used or reserved {minute}; "
                f"{asks}try again in {wait_s} s",
                kind=kind,
                retry_after_s=max(1, wait_s),
            )
