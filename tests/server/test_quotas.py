"""The book of quotas under a clock that the test turns: exact limits, exact waits, and random lives of requests."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corral.errors import QuotaExceeded
from corral.server.caller import Caller, Quotas
from corral.server.exchange import Exchange
from corral.server.quota_headers import duration
from corral.server.quotas import DayUse, Promise, QuotaBook
from corral.server.windows import DAY_S, MINUTE_S, Minute, day_of

NOON = 20_000 * DAY_S + DAY_S / 2


class Hands:
    """Of both clocks."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wall(self) -> float:
        return NOON - 1000.0 + self.now


def book_of(hands: Hands) -> QuotaBook:
    return QuotaBook(lambda: hands.now, hands.wall)


def exchange_with(**quotas: int) -> Exchange:
    return Exchange(caller=Caller(key_id="key_1", quotas=Quotas(**quotas)))


def ask(book: QuotaBook, **quotas: int) -> None:
    with book.admit(exchange_with(**quotas)):
        pass


def test_requests_of_a_minute() -> None:
    hands = Hands()
    book = book_of(hands)
    for _ in range(3):
        ask(book, requests_per_minute=3)
        hands.now += 10
    with pytest.raises(QuotaExceeded, match=r"requests per minute: limit 3, used 3. Try again in 30 s") as caught:
        ask(book, requests_per_minute=3)
    assert (caught.value.kind, caught.value.retry_after_s, caught.value.is_for_today) == ("requests", 30, False)
    hands.now += 29.99
    with pytest.raises(QuotaExceeded):
        ask(book, requests_per_minute=3)
    hands.now += 0.01
    ask(book, requests_per_minute=3)
    with pytest.raises(QuotaExceeded, match="in 10 s"):
        ask(book, requests_per_minute=3)


def test_requests_of_a_day_begin_anew_at_midnight_utc() -> None:
    hands = Hands()
    book = book_of(hands)
    book.set_elsewhere(day_of(NOON), {"key_1": DayUse(requests=2), "other": DayUse(requests=99)})
    ask(book, requests_per_day=3)
    with pytest.raises(QuotaExceeded, match="per day: limit 3, used 3") as caught:
        ask(book, requests_per_day=3)
    assert caught.value.is_for_today
    assert caught.value.retry_after_s == DAY_S // 2
    hands.now += DAY_S // 2
    for _ in range(3):
        ask(book, requests_per_day=3)
    with pytest.raises(QuotaExceeded):
        ask(book, requests_per_day=3)


def test_concurrent_requests() -> None:
    book = book_of(Hands())
    with book.admit(exchange_with(max_concurrent=2)), contextlib.suppress(ValueError):
        with book.admit(exchange_with(max_concurrent=2)):
            with pytest.raises(QuotaExceeded, match="2 requests of the key are under way or wait; 2 may be"):
                ask(book, max_concurrent=2)
            raise ValueError
        ask(book, max_concurrent=2)


def test_an_exchange_that_asks_again_is_one_request() -> None:
    book, exchange = book_of(Hands()), exchange_with(requests_per_minute=1)
    for _ in range(3):
        with book.admit(exchange):
            assert exchange.is_counted
    with pytest.raises(QuotaExceeded):
        ask(book, requests_per_minute=1)


def test_tokens_are_promised_and_given_back() -> None:
    hands = Hands()
    book, exchange = book_of(hands), exchange_with(tokens_per_minute=100)
    with book.admit(exchange):
        first = book.promise(exchange, 10, 50)
        with pytest.raises(QuotaExceeded, match=r"used 0, promised 60, requested 41. Try again in 1 s"):
            book.promise(exchange, 1, 40)
        second = book.promise(exchange, 20, 1000, may_cut=True)
        assert second.max_tokens == 20, "what is left, and not what it could have"
        first.spend(10)
        first.spend(15)
        first.close()
        first.close()
        with pytest.raises(QuotaExceeded, match="used 15, promised 40, requested 46"):
            book.promise(exchange, 0, 46)
        third = book.promise(exchange, 15, 10, n=3)
        assert third.max_tokens == 10
        for promise in (second, third):
            promise.close()
        hands.now += 20
        with pytest.raises(QuotaExceeded, match="in 40 s"):
            book.promise(exchange, 86)
        with pytest.raises(QuotaExceeded, match=r"Request too large .* limit 100") as caught:
            book.promise(exchange, 1, 100)
        assert caught.value.retry_after_s is None
        book.promise(exchange, 85).close()


def test_answers_that_may_be_cut_get_a_token_each_or_nothing() -> None:
    book, exchange = book_of(Hands()), exchange_with(tokens_per_day=10)
    with book.admit(exchange):
        with pytest.raises(QuotaExceeded):
            book.promise(exchange, 7, 100, n=4, may_cut=True)
        promise = book.promise(exchange, 5, 100, n=4, may_cut=True)
        assert promise.max_tokens == 1
        promise.close()
        assert book.promise(exchange, 1, 100, n=4, may_cut=True).max_tokens == 2


def test_a_request_that_is_refused_for_its_tokens_is_none() -> None:
    hands = Hands()
    book = book_of(hands)
    quotas = {"tokens_per_minute": 10, "requests_per_minute": 1, "requests_per_day": 1}
    refused, exchange = exchange_with(**quotas), exchange_with(**quotas)
    with book.admit(refused):
        with pytest.raises(QuotaExceeded):
            book.promise(refused, 11)
        assert not refused.is_counted
    with book.admit(exchange):
        book.promise(exchange, 10).spend(10)
    with pytest.raises(QuotaExceeded, match="requests"):
        ask(book, **quotas)


def test_the_days_tokens_wait_for_those_under_way() -> None:
    hands = Hands()
    book, exchange = book_of(hands), exchange_with(tokens_per_day=100)
    with book.admit(exchange):
        promise = book.promise(exchange, 0, 90)
        with pytest.raises(QuotaExceeded) as caught:
            book.promise(exchange, 20)
        assert (caught.value.is_for_today, caught.value.retry_after_s) == (False, 1)
        promise.spend(90)
        with pytest.raises(QuotaExceeded) as caught:
            book.promise(exchange, 20)
        assert (caught.value.is_for_today, caught.value.retry_after_s) == (True, DAY_S // 2)
        hands.now += DAY_S // 2
        book.promise(exchange, 100).close()


def test_keys_without_quotas_have_no_account() -> None:
    book = book_of(Hands())
    for caller in (Caller(), Caller(key_id="key_2"), Caller(quotas=Quotas(max_concurrent=1))):
        exchange = Exchange(caller=caller)
        with book.admit(exchange), book.admit(Exchange(caller=caller)):
            assert exchange.is_counted
        assert not book.is_metered(caller)
        assert book.standing(caller) == (None, None)


def test_the_standing_is_that_of_the_tighter_quota() -> None:
    hands = Hands()
    book = book_of(hands)
    exchange = exchange_with(requests_per_minute=5, requests_per_day=3, tokens_per_minute=50, tokens_per_day=500)
    with book.admit(exchange):
        promise = book.promise(exchange, 10, 20)
        requests, tokens = book.standing(exchange.caller)
        assert requests is not None
        assert tokens is not None
        assert (requests.limit, requests.remaining, requests.reset_s) == (3, 2, DAY_S / 2)
        assert (tokens.limit, tokens.remaining, tokens.reset_s) == (50, 20, 60)
        promise.spend(12)
        promise.close()
    hands.now += 15
    _, tokens = book.standing(exchange.caller)
    assert tokens is not None
    assert (tokens.remaining, tokens.reset_s) == (38, 45)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0171, "17ms"), (8.64, "8.64s"), (60, "1m0s"), (359.999, "6m0s"), (86399, "23h59m59s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@dataclass
class Running:
    exchange: Exchange
    promise: Promise
    lease: contextlib.ExitStack
    granted: int
    spent: int = 0


@dataclass
class Ghost:
    """What was used, for ever, to be counted by the book's definition and not by its means."""

    tokens: list[tuple[float, int]] = field(default_factory=list)  # (when, how many)
    requests: list[float] = field(default_factory=list)


class QuotaMachine(RuleBasedStateMachine):
    """Whatever requests do, no minute and no day has more than its quota, and nothing is lost of it either."""

    RPM, RPD, TPM, TPD, CONCURRENT = 6, 15, 100, 260, 4

    def __init__(self) -> None:
        super().__init__()
        self.hands = Hands()
        self.book = book_of(self.hands)
        self.ghost = Ghost()
        self.running: list[Running] = []

    def in_minute(self, uses: list[tuple[float, int]]) -> int:
        return sum(amount for at, amount in uses if at > self.hands.now - MINUTE_S)

    def on_day(self, uses: list[tuple[float, int]]) -> int:
        start = self.hands.now - self.hands.wall() % DAY_S
        return sum(amount for at, amount in uses if at >= start)

    @property
    def requests(self) -> list[tuple[float, int]]:
        return [(at, 1) for at in self.ghost.requests]

    @rule(prompt=st.integers(1, 40), max_tokens=st.integers(0, 60), n=st.integers(1, 3), may_cut=st.booleans())
    def ask(self, prompt: int, max_tokens: int, n: int, may_cut: bool) -> None:
        exchange = exchange_with(
            requests_per_minute=self.RPM,
            requests_per_day=self.RPD,
            tokens_per_minute=self.TPM,
            tokens_per_day=self.TPD,
            max_concurrent=self.CONCURRENT,
        )
        lease = contextlib.ExitStack()
        is_admitted = True
        try:
            lease.enter_context(self.book.admit(exchange))
        except QuotaExceeded:
            is_admitted = False
        if not is_admitted:
            is_full = len(self.running) >= self.CONCURRENT or self.on_day(self.requests) >= self.RPD
            # Uses within a tenth of a second may be kept until the last of them is a minute old.
            almost = sum(at > self.hands.now - MINUTE_S - 0.1 for at in self.ghost.requests)
            assert is_full or almost >= self.RPM
            return
        least = prompt + n * (min(1, max_tokens) if may_cut else max_tokens)
        promised = sum(each.granted - each.spent for each in self.running)
        almost = sum(amount for at, amount in self.ghost.tokens if at > self.hands.now - MINUTE_S - 0.1)
        refusal = None
        try:
            promise = self.book.promise(exchange, prompt, max_tokens, n, may_cut=may_cut)
        except QuotaExceeded as error:
            refusal = error
        if refusal is not None:
            lease.close()
            assert almost + promised + least > self.TPM or self.on_day(self.ghost.tokens) + promised + least > self.TPD
            assert (refusal.retry_after_s is None) == (least > self.TPM)
            return
        assert promise.max_tokens == max_tokens or may_cut
        self.ghost.requests.append(self.hands.now)
        self.running.append(Running(exchange, promise, lease, prompt + n * promise.max_tokens))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        running = data.draw(st.sampled_from(self.running))
        more = data.draw(st.integers(0, running.granted - running.spent))
        running.spent += more
        running.promise.spend(running.spent)
        if more:
            self.ghost.tokens.append((self.hands.now, more))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        running = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        running.lease.close()
        running.promise.close()

    @rule(seconds=st.sampled_from([0.01, 0.09, 1.0, 13.0, 59.9, 61.0, 3600.0, 40_000.0]))
    def wait(self, seconds: float) -> None:
        self.hands.now += seconds

    @invariant()
    def quotas_hold(self) -> None:
        promised = sum(each.granted - each.spent for each in self.running)
        assert self.in_minute(self.ghost.tokens) + promised <= self.TPM
        assert self.on_day(self.ghost.tokens) + promised <= self.TPD
        assert self.in_minute(self.requests) <= self.RPM
        assert self.on_day(self.requests) <= self.RPD
        assert len(self.running) <= self.CONCURRENT


QuotaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQuotaMachine = QuotaMachine.TestCase


def test_the_wait_that_is_told_is_long_enough_and_not_a_second_longer() -> None:
    """For every fill of a minute out of uses at different times."""
    for needed in range(1, 11):
        window = Minute()
        for at in range(10):
            window.add(at * 3.5, 1)
        wait_s = window.seconds_until_gone(40.0, needed)
        assert wait_s == (needed - 1) * 3.5 + MINUTE_S - 40.0
        assert window.total(40.0 + wait_s) == 10 - needed
        assert window.seconds_until_gone(40.0, 11) is None
    assert math.isclose(Minute().seconds_until_empty(5.0), 0.0)
