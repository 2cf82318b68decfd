"""What each key may still use: requests and tokens of a minute and of a UTC day, and requests under way at once.

Tokens are promised before the first is computed, and what was promised and not used is given back at the end. Between
the look at what is left and the promise nothing else runs, as all happens on one event loop: so no number of requests
gets more than there is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from corral.errors import QuotaExceeded
from corral.server.caller import Caller, Quotas
from corral.server.exchange import Exchange
from corral.server.windows import MINUTE_S, Entry, Minute, day_of, seconds_left

NO_QUOTAS = Quotas()
_SOON_S = 1  # when what is asked waits for others to end, nobody knows for how long

Seconds = Callable[[], float]


@dataclass(frozen=True, slots=True)
class DayUse:
    """What a key has used on a day."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands with one of its quotas; `reset_s` is until it is whole again if nothing is asked."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(eq=False, slots=True)
class _Account:
    """What a key has used by this server, since it started."""

    requests: Minute = field(default_factory=Minute)
    tokens: Minute = field(default_factory=Minute)
    day: int = 0
    day_requests: int = 0
    day_tokens: int = 0
    promised: int = 0  # tokens
    num_under_way: int = 0
    admitted: dict[Exchange, tuple[Entry, int]] = field(default_factory=dict)  # and the day

    def turn_to(self, day: int) -> None:
        """A clock that is set back does not give a day's quota twice."""
        if day > self.day:
            self.day, self.day_requests, self.day_tokens = day, 0, 0


class Promise:
    """Tokens that one request may still use; made by QuotaBook.promise.

    Args:
        max_tokens: of each answer.
    """

    def __init__(self, book: QuotaBook, account: _Account, num_tokens: int, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._book = book
        self._account = account
        self._left = num_tokens
        self._spent = 0
        account.promised += num_tokens

    def spend(self, total: int) -> None:
        """So many tokens of it are used by now."""
        amount = total - self._spent
        if amount > 0:
            self._spent = total
            self._book.book_tokens(self._account, amount)
            self._give_back(min(amount, self._left))

    def close(self) -> None:
        """Gives back what is left. Idempotent."""
        self._give_back(self._left)

    def _give_back(self, amount: int) -> None:
        self._left -= amount
        self._account.promised -= amount


class QuotaBook:
    """The accounts of all keys with quotas. Lives on one event loop.

    Args:
        monotonic, wall: the time; tests have their own.
    """

    def __init__(self, monotonic: Seconds = time.monotonic, wall: Seconds = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._accounts: dict[str, _Account] = {}
        self._elsewhere: Mapping[str, DayUse] = {}
        self._elsewhere_day = 0

    def set_elsewhere(self, day: int, used: Mapping[str, DayUse]) -> None:
        """What keys have used on that UTC day by other servers, and by this one before it was started."""
        self._elsewhere_day, self._elsewhere = day, used

    @contextmanager
    def admit(self, exchange: Exchange) -> Iterator[None]:
        """Books a request for as long as the block runs; another one of the same exchange is the same request.

        Raises:
            QuotaExceeded: of requests; then none is booked.
        """
        caller = exchange.caller
        account = self._account_of(caller)
        if account is None:
            exchange.is_counted = True
            yield
            return
        most = caller.quotas.max_concurrent
        if most is not None and account.num_under_way >= most:
            under_way = f"{account.num_under_way} requests of the key are under way or wait; {most} may be"
            raise QuotaExceeded(f"Rate limit reached: {under_way}.", "requests", _SOON_S)
        if not exchange.is_counted:
            self._book_request(account, exchange)
        account.num_under_way += 1
        try:
            yield
        finally:
            account.num_under_way -= 1
            account.admitted.pop(exchange, None)

    def is_metered(self, caller: Caller) -> bool:
        """Whether the caller's tokens need a promise."""
        quotas = caller.quotas
        return bool(caller.key_id) and (quotas.tokens_per_minute is not None or quotas.tokens_per_day is not None)

    def promise(
        self, exchange: Exchange, prompt_tokens: int, max_tokens: int = 0, n: int = 1, *, may_cut: bool = False
    ) -> Promise:
        """Room for a prompt and `n` answers, of the caller of an exchange that was admitted.

        Args:
            max_tokens: of each answer.
            may_cut: shorter answers will do, of one token at least.

        Raises:
            QuotaExceeded: of tokens; then the request is not booked either.
        """
        account = self._account_of(exchange.caller)
        if account is None:
            raise RuntimeError("who has no quotas is not metered")
        least = prompt_tokens + n * (min(1, max_tokens) if may_cut else max_tokens)
        most = prompt_tokens + n * max_tokens
        try:
            room = self._room(account, exchange.caller, least)
        except QuotaExceeded:
            self._take_back(account, exchange)
            raise
        if most > room:
            max_tokens = int((room - prompt_tokens) // n)
            most = prompt_tokens + n * max_tokens
        return Promise(self, account, most, max_tokens)

    def book_tokens(self, account: _Account, amount: int) -> None:
        """Tokens were used now."""
        account.turn_to(day_of(self._wall()))
        account.tokens.add(self._monotonic(), amount)
        account.day_tokens += amount

    def standing(self, caller: Caller) -> tuple[Standing | None, Standing | None]:
        """Of requests and of tokens: the quota of the minute or of the day, whichever has less left."""
        account = self._account_of(caller)
        if account is None:
            return None, None
        now, quotas = self._monotonic(), caller.quotas
        day_s = seconds_left(self._wall())
        today = self._used_today(account, caller)
        requests_s = account.requests.seconds_until_empty(now)
        tokens_s = MINUTE_S if account.promised else account.tokens.seconds_until_empty(now)
        requests = (
            _standing(quotas.requests_per_minute, account.requests.total(now), requests_s),
            _standing(quotas.requests_per_day, today.requests, day_s),
        )
        promised = account.promised
        tokens = (
            _standing(quotas.tokens_per_minute, account.tokens.total(now) + promised, tokens_s),
            _standing(quotas.tokens_per_day, today.tokens + promised, day_s),
        )
        return _tightest(requests), _tightest(tokens)

    def _account_of(self, caller: Caller) -> _Account | None:
        """Turned to this day; None for a caller without quotas."""
        if not caller.key_id or caller.quotas == NO_QUOTAS:
            return None
        account = self._accounts.setdefault(caller.key_id, _Account())
        account.turn_to(day_of(self._wall()))
        return account

    def _used_today(self, account: _Account, caller: Caller) -> DayUse:
        elsewhere = self._elsewhere.get(caller.key_id) if self._elsewhere_day == account.day else None
        elsewhere = elsewhere or DayUse()
        return DayUse(account.day_requests + elsewhere.requests, account.day_tokens + elsewhere.tokens)

    def _book_request(self, account: _Account, exchange: Exchange) -> None:
        quotas, now = exchange.caller.quotas, self._monotonic()
        used, limit = self._used_today(account, exchange.caller).requests, quotas.requests_per_day
        if limit is not None and used >= limit:
            raise _exceeded("requests", "day", limit, f"used {used}", seconds_left(self._wall()), is_for_today=True)
        used, limit = account.requests.total(now), quotas.requests_per_minute
        if limit is not None and used >= limit:
            wait_s = account.requests.seconds_until_gone(now, used + 1 - limit)
            raise _exceeded("requests", "minute", limit, f"used {used}", wait_s)
        account.admitted[exchange] = account.requests.add(now, 1), account.day
        account.day_requests += 1
        exchange.is_counted = True

    def _take_back(self, account: _Account, exchange: Exchange) -> None:
        """The request is refused after all; it costs nothing, or who comes back too early would never get in."""
        booked = account.admitted.pop(exchange, None)
        if booked is not None:
            entry, day = booked
            account.requests.take_back(self._monotonic(), entry, 1)
            account.day_requests -= day == account.day
            exchange.is_counted = False

    def _room(self, account: _Account, caller: Caller, least: int) -> float:
        """Tokens that can be promised. Raises QuotaExceeded where they are fewer than `least`."""
        quotas, now = caller.quotas, self._monotonic()
        minute = _Use("minute", quotas.tokens_per_minute, account.tokens.total(now), account.promised, least)
        day = _Use("day", quotas.tokens_per_day, self._used_today(account, caller).tokens, account.promised, least)
        for use in (minute, day):
            if least > use.most:
                raise use.refusal(None)
        if day.used + least > day.most:
            raise day.refusal(seconds_left(self._wall()), is_for_today=True)
        if minute.room < least:
            wait_s = account.tokens.seconds_until_gone(now, least - int(minute.room))
            raise minute.refusal(_SOON_S if wait_s is None else wait_s)
        if day.room < least:
            raise day.refusal(_SOON_S)
        return min(minute.room, day.room)


@dataclass(frozen=True, slots=True)
class _Use:
    """Of one of the quotas of tokens."""

    period: str
    limit: int | None
    used: int
    promised: int
    asked: int

    @property
    def most(self) -> float:
        return math.inf if self.limit is None else self.limit

    @property
    def room(self) -> float:
        return self.most - self.used - self.promised

    def refusal(self, wait_s: float | None, *, is_for_today: bool = False) -> QuotaExceeded:
        told = f"used {self.used}, promised {self.promised}, requested {self.asked}"
        return _exceeded("tokens", self.period, int(self.most), told, wait_s, is_for_today=is_for_today)


def _exceeded(
    kind: str, period: str, limit: int, told: str, wait_s: float | None, *, is_for_today: bool = False
) -> QuotaExceeded:
    if wait_s is None:
        text = f"Request too large for the key's {kind} per {period}: limit {limit}, {told}. Ask for fewer tokens."
        return QuotaExceeded(text, kind, None)
    retry_after_s = max(1, math.ceil(wait_s))
    text = f"Rate limit reached on {kind} per {period}: limit {limit}, {told}. Try again in {retry_after_s} s."
    return QuotaExceeded(text, kind, retry_after_s, is_for_today=is_for_today)


def _standing(limit: int | None, used: int, reset_s: float) -> Standing | None:
    return None if limit is None else Standing(limit, max(0, limit - used), reset_s if used else 0.0)


def _tightest(standings: tuple[Standing | None, ...]) -> Standing | None:
    return min((each for each in standings if each is not None), key=lambda each: each.remaining, default=None)
