"""What a key may use: the book alone, and beside real worker processes with scripted models."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import QuotaExceeded
from corral.protocol.ollama.errors import ollama_error
from corral.protocol.openai.errors import reply_to
from corral.request import EmbedRequest, Request
from corral.sampling_params import SamplingParams
from corral.server.caller import EVERYBODY, Caller, Quotas
from corral.server.exchange import Exchange
from corral.server.quotas import DAY_S, QuotaBook
from tests.support.manager_stage import A, Stage, ask, stage


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0 * DAY_S

    def __call__(self) -> float:
        return self.now_s


def caller(**quotas: int) -> Caller:
    return Caller(key_id="key_1", owner="key_1", quotas=Quotas(**quotas))


def test_without_quotas_nothing_is_counted() -> None:
    book = QuotaBook(Clock())
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(book.request(EVERYBODY))
    assert not book.limits_tokens(EVERYBODY)


def test_requests_of_a_minute_and_when_there_is_room_again() -> None:
    clock = Clock()
    book, key = QuotaBook(clock), caller(requests_per_minute=2)
    for _ in range(2):
        with book.request(key):
            clock.now_s += 10
    with pytest.raises(QuotaExceeded, match="may have 2 requests a minute") as caught, book.request(key):
        pass
    assert caught.value.retry_after_s == 40
    clock.now_s += 39.5
    with pytest.raises(QuotaExceeded), book.request(key):
        pass
    clock.now_s += 0.5
    with book.request(key):
        pass


def test_requests_of_a_day_end_at_midnight() -> None:
    clock = Clock()
    book, key = QuotaBook(clock), caller(requests_per_day=1)
    clock.now_s += DAY_S - 90
    with book.request(key):
        pass
    with pytest.raises(QuotaExceeded, match="midnight UTC") as caught, book.request(key):
        pass
    assert (caught.value.retry_after_s, caught.value.is_of_day) == (90, True)
    clock.now_s += 90
    with book.request(key):
        pass


def test_requests_at_once() -> None:
    book, key = QuotaBook(Clock()), caller(max_concurrent=2)
    with book.request(key), book.request(key):
        with pytest.raises(QuotaExceeded, match="2 requests of this key are under way"), book.request(key):
            pass
        with book.request(Caller(owner="another", quotas=key.quotas)):
            pass
    with book.request(key):
        pass


def test_what_goes_on_is_no_new_request() -> None:
    book, key = QuotaBook(Clock()), caller(requests_per_day=1)
    for is_new in (True, False, False):
        with book.request(key, is_new=is_new):
            pass


def test_tokens_are_reserved_and_given_back() -> None:
    clock = Clock()
    book, key = QuotaBook(clock), caller(tokens_per_minute=100, tokens_per_day=150)
    with book.tokens(key, 60) as first:
        assert book.tokens_left(key) == 40
        with pytest.raises(QuotaExceeded, match="may come to 41"), book.tokens(key, 41):
            pass
        first.used = 10
        clock.now_s += 300  # a reservation counts for as long as it lasts
        assert book.tokens_left(key) == 40
    assert book.tokens_left(key) == 90
    clock.now_s += 60
    assert book.tokens_left(key) == 100
    with book.tokens(key, 100) as second:
        second.used = 100
    clock.now_s += 60
    assert book.tokens_left(key) == 40


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 80), st.integers(0, 40)), max_size=60),
    limit=st.integers(1, 120),
)
def test_no_minute_has_more_than_its_quota(sizes: list[tuple[int, int, int]], limit: int) -> None:
    clock = Clock()
    book, key = QuotaBook(clock), caller(tokens_per_minute=limit)
    ended: list[tuple[float, int]] = []
    with ExitStack() as open_ones:
        for number, (reserved, used, pause_s) in enumerate(sizes):
            clock.now_s += pause_s
            try:
                reservation = open_ones.enter_context(book.tokens(key, reserved))
            except QuotaExceeded:
                open_ones.close()
                continue
            reservation.used = min(used, reserved)
            ended.append((clock.now_s, reservation.used))
            recent = sum(tokens for at, tokens in ended if at > clock.now_s - 60)
            assert recent <= limit
            if number % 3 == 0:
                open_ones.close()


@pytest.mark.parametrize(("is_of_day", "code"), [(False, "rate_limit_exceeded"), (True, "insufficient_quota")])
def test_errors(is_of_day: bool, code: str) -> None:
    error = QuotaExceeded("no more", kind="tokens", retry_after_s=7, is_of_day=is_of_day)
    reply = reply_to(error)
    assert (reply.status, reply.type, reply.code, reply.headers["Retry-After"]) == (429, "tokens", code, "7")
    assert (ollama_error(error).status, ollama_error(error).headers["Retry-After"]) == (429, "7")


# ---- beside workers -----------------------------------------------------------------------------------------------


async def use(on: Stage, exchange: Exchange, text: str, max_tokens: int | None = None) -> int:
    """Tokens that the request has come to."""
    async with on.manager.lease(A, exchange) as model:
        request = Request("r" + exchange.request_id, prompt=text, sampling=SamplingParams(max_tokens=max_tokens))
        async for output in model.generate(request):
            last = output
    return last.usage.prompt_tokens + last.usage.completion_tokens


@pytest.mark.parametrize("max_tokens", [3, None])
async def test_fifty_at_once_never_use_more_than_the_quota(max_tokens: int | None) -> None:
    async with stage() as on:
        key = caller(tokens_per_day=100)
        jobs = [use(on, Exchange(caller=key), "one two three", max_tokens) for _ in range(50)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        used = sum(result for result in results if isinstance(result, int))
        assert all(isinstance(result, int | QuotaExceeded) for result in results)
        assert any(isinstance(result, QuotaExceeded) for result in results)
        while used + 6 <= 100:  # what was reserved and not used can be had again, to the last token
            used += await use(on, Exchange(caller=key), "one two three", 3)
        assert used == 96
        with pytest.raises(QuotaExceeded):
            await use(on, Exchange(caller=key), "one two three", 3)
        assert await use(on, Exchange(caller=key), "one", 3) <= 4
        assert await use(on, Exchange(caller=Caller(owner="another")), "one two three") == 6


async def test_an_answer_without_max_tokens_ends_with_the_quota() -> None:
    async with stage() as on:
        assert await use(on, Exchange(caller=caller(tokens_per_day=50)), "forever and ever") == 6
        exchange = Exchange(caller=caller(tokens_per_day=50))
        async with on.manager.lease(A, exchange) as model:
            answer = await ask(model, " ".join(["word"] * 20))
        assert len(answer.split()) == 20
        [generation] = exchange.generations
        assert isinstance(generation.request, Request)
        assert generation.request.sampling.max_tokens == 50 - 6 - 20


async def test_who_leaves_gives_back_what_was_not_used() -> None:
    async with stage() as on:
        key = caller(tokens_per_minute=1000)
        async with on.manager.lease(A, Exchange(caller=key)) as model:
            request = Request("r", prompt="forever", sampling=SamplingParams(max_tokens=900))
            outputs = model.generate(request)
            async for output in outputs:
                if output.deltas:
                    break
            with pytest.raises(QuotaExceeded):
                await use(on, Exchange(caller=key), "one", 500)
            await outputs.aclose()
            assert await use(on, Exchange(caller=key), "one", 500) == 2


async def test_vectors_cost_their_tokens() -> None:
    async with stage() as on:
        key = caller(tokens_per_day=30)
        async with on.manager.lease(A, Exchange(caller=key)) as model:
            await model.embed(EmbedRequest("e", "a", ["one two three four"]))
            with pytest.raises(QuotaExceeded):
                await model.embed(EmbedRequest("f", "a", ["one two three four five six"]))
            await model.embed(EmbedRequest("g", "a", ["one two three four"]))


async def test_a_second_lease_of_an_exchange_is_no_second_request() -> None:
    async with stage() as on:
        exchange = Exchange(caller=caller(requests_per_day=1))
        for _ in range(2):
            assert await use(on, exchange, "one") == 2
        with pytest.raises(QuotaExceeded):
            await use(on, Exchange(caller=exchange.caller), "one")
