"""Quotas at a live server over scripted workers: many requests at once, streams that are left, three clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from corral.server.caller import Quotas
from corral.server.database import Database
from corral.server.keys.audit import Actor
from corral.server.keys.key import NewKey
from corral.server.keys.store import KeyStore
from corral.server.windows import DAY_S
from tests.support.live_server import LiveServer, chat_body, error_of, live_server


@dataclass
class Metered:
    """A server whose keys the test makes."""

    server: LiveServer
    store: KeyStore

    def key(self, **quotas: int) -> str:
        name = f"key {time.monotonic_ns()}"
        _, secret = self.store.create(NewKey(name, quotas=Quotas(**quotas)), Actor("tester"))
        self.server.run(self.server.app.state.keys.reload)
        return secret

    def ask(self, key: str, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
        body = body or chat_body()
        return httpx.post(self.server.url + path, json=body, headers={"x-api-key": key}, timeout=60)

    def promised(self) -> int:
        return sum(account.promised for account in self.server.manager.quotas._accounts.values())

    def wait_until_settled(self) -> None:
        """Nothing is promised any more; each look is a round trip, so none is a busy loop."""
        deadline = time.monotonic() + 60
        while self.promised():
            assert time.monotonic() < deadline
            self.server.stats()


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    url = f"sqlite:///{tmp_path_factory.mktemp('quotas') / 'corral.db'}"
    with Database(url).for_now() as database:
        store = KeyStore(database)
        store.create(NewKey("first"), Actor("tester"))
        with live_server(database_url=url) as server:
            yield Metered(server, store)


def tokens_left(response: httpx.Response) -> int:
    return int(response.headers["x-ratelimit-remaining-tokens"])


@pytest.mark.parametrize("max_tokens", [3, None])
def test_many_at_once_never_get_more_than_there_is(metered: Metered, max_tokens: int | None) -> None:
    """Three words of prompt and three of answer; those without a limit are promised all that is left at first."""
    quota, each = 63, 6
    key = metered.key(tokens_per_day=quota)
    body = chat_body("one two three", **({} if max_tokens is None else {"max_tokens": max_tokens}))

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60, headers={"x-api-key": key}) as client:
            url = f"{metered.server.base_url}/chat/completions"
            return list(await asyncio.gather(*(client.post(url, json=body) for _ in range(50))))

    used = 0
    for _ in range(2 if max_tokens else 12):
        answers = asyncio.run(ask_all())
        good = [answer for answer in answers if answer.status_code == 200]
        used += sum(answer.json()["usage"]["total_tokens"] for answer in good)
        assert used <= quota
        assert {error_of(answer)["code"] for answer in answers if answer not in good} <= {
            "rate_limit_exceeded",
            "insufficient_quota",
        }
    if max_tokens:
        assert used == quota // each * each, "three tokens are left, and none can have them"
    else:
        assert quota - used < 4, "the last answer was cut to what was left"
    metered.wait_until_settled()
    last = metered.ask(key, **body)
    assert last.status_code == 429
    assert tokens_left(last) == quota - used


def test_a_stream_that_is_left_gives_back_what_it_did_not_use(metered: Metered) -> None:
    key = metered.key(tokens_per_day=2000)
    body = chat_body("forever", stream=True, max_tokens=1000)
    url = f"{metered.server.base_url}/chat/completions"
    with httpx.stream("POST", url, json=body, headers={"x-api-key": key}, timeout=60) as stream:
        assert stream.headers["x-ratelimit-remaining-tokens"] == "999"
        assert metered.ask(key, **chat_body("forever", max_tokens=999)).status_code == 429
        next(stream.iter_lines())
    metered.wait_until_settled()
    answer = metered.ask(key, **chat_body("one more"))
    assert answer.status_code == 200
    assert 999 < tokens_left(answer) + 4 < 2000, "what was computed until it was left is gone"


@pytest.mark.parametrize("script", ["full", "too long", "crash"])
def test_a_request_that_fails_holds_nothing(metered: Metered, script: str) -> None:
    key = metered.key(tokens_per_day=100, max_concurrent=1)
    assert metered.ask(key, **chat_body(script, max_tokens=50)).status_code >= 400
    metered.wait_until_settled()
    answer = metered.ask(key, **chat_body("one"))
    assert answer.status_code == 200


def test_a_worker_that_is_killed_costs_no_token_twice(metered: Metered) -> None:
    key = metered.key(tokens_per_day=100)
    url = f"{metered.server.base_url}/chat/completions"
    body = chat_body("hold", stream=True, stream_options={"include_usage": True}, max_tokens=20)
    with httpx.stream("POST", url, json=body, headers={"x-api-key": key}, timeout=60) as stream:
        lines = stream.iter_lines()
        assert "held" in next(line for line in lines if "held" in line)
        os.kill(metered.server.worker_pid(), signal.SIGKILL)
        metered.server.wait_until(lambda stats: stats.num_requests == 1)
        assert metered.ask(metered.key(), **chat_body("release")).status_code == 200
        assert any("[DONE]" in line for line in lines)
    metered.wait_until_settled()
    assert tokens_left(metered.ask(key, **chat_body("x", max_tokens=1))) == 100 - 3 - 2


def test_openais_client_sees_a_rate_limit(metered: Metered) -> None:
    key = metered.key(requests_per_minute=2, tokens_per_minute=1000)
    with openai.OpenAI(base_url=metered.server.base_url, api_key=key, max_retries=0) as client:
        message: Any = {"role": "user", "content": "one two"}
        raw = client.chat.completions.with_raw_response.create(model="scripted", messages=[message], max_tokens=9)
        assert raw.headers["x-ratelimit-limit-requests"] == "2"
        assert raw.headers["x-ratelimit-remaining-requests"] == "1"
        assert raw.headers["x-ratelimit-limit-tokens"] == "1000"
        assert raw.headers["x-ratelimit-remaining-tokens"] == "996"
        client.chat.completions.create(model="scripted", messages=[message])
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="scripted", messages=[message])
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")
    headers = caught.value.response.headers
    assert 50 <= int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-should-retry" not in headers


def test_openais_client_sees_a_quota_that_is_used_up(metered: Metered) -> None:
    key = metered.key(tokens_per_day=5)
    with openai.OpenAI(base_url=metered.server.base_url, api_key=key) as client:
        client.completions.create(model="scripted", prompt="one two", max_tokens=2)
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(model="scripted", prompt="one two", max_tokens=2)
        assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
        left_s = DAY_S - time.time() % DAY_S
        assert abs(int(caught.value.response.headers["retry-after"]) - left_s) < 60
        assert caught.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.RateLimitError, match="Request too large") as caught:
            client.completions.create(model="scripted", prompt="one two", max_tokens=4)
        assert "retry-after" not in caught.value.response.headers
        assert caught.value.type == "tokens"


def test_the_other_clients_see_it_too(metered: Metered) -> None:
    key = metered.key(requests_per_day=2, tokens_per_minute=1000)
    message: Any = {"role": "user", "content": "one two"}
    with anthropic.Anthropic(base_url=metered.server.url, api_key=key, max_retries=0) as client:
        raw = client.messages.with_raw_response.create(model="scripted", max_tokens=5, messages=[message])
        assert raw.headers["anthropic-ratelimit-requests-remaining"] == "1"
        assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("T00:00:00Z")
        assert raw.headers["anthropic-ratelimit-tokens-limit"] == "1000"
        assert "x-ratelimit-limit-tokens" not in raw.headers
        client.messages.count_tokens(model="scripted", messages=[message])
        with pytest.raises(anthropic.RateLimitError, match="rate_limit_error"):
            client.messages.create(model="scripted", max_tokens=5, messages=[message])
    native = ollama.Client(metered.server.url, headers={"x-api-key": key})
    with pytest.raises(ollama.ResponseError, match="Rate limit reached on requests per day") as caught:
        native.chat("scripted", [message])
    native._client.close()
    assert caught.value.status_code == 429


def test_embeddings_cost_their_tokens_and_lookups_none(metered: Metered) -> None:
    key = metered.key(tokens_per_day=10, requests_per_day=4)
    first = metered.ask(key, "/v1/embeddings", model="scripted", input=["one two", "three four five"])
    assert tokens_left(first) == 5
    refused = metered.ask(key, "/v1/embeddings", model="scripted", input=["one two three", "four five six"])
    assert error_of(refused)["code"] == "insufficient_quota"
    for path, body in (
        ("/tokenize", {"prompt": "one two"}),
        ("/v1/completions/render", {"prompt": "one two"}),
    ):
        answer = metered.ask(key, path, model="scripted", **body)
        assert (answer.status_code, tokens_left(answer)) == (200, 5)
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"


def test_embeddings_that_are_given_up_cost_their_text(metered: Metered) -> None:
    key = metered.key(tokens_per_day=10)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{metered.server.base_url}/embeddings",
            json={"model": "scripted", "input": ["forever", "two words"]},
            headers={"x-api-key": key},
            timeout=0.5,
        )
    metered.wait_until_settled()
    assert tokens_left(metered.ask(key, "/v1/embeddings", model="scripted", input="x")) == 10 - 3 - 1


def test_requests_under_way_are_counted_until_their_streams_end(metered: Metered) -> None:
    key = metered.key(max_concurrent=1)
    url = f"{metered.server.base_url}/chat/completions"
    with httpx.stream(
        "POST", url, json=chat_body("forever", stream=True), headers={"x-api-key": key}, timeout=60
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        refused = metered.ask(key)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert error_of(refused)["type"] == "requests"
    deadline = time.monotonic() + 60
    while metered.ask(key).status_code != 200:
        assert time.monotonic() < deadline


def test_a_request_with_several_prompts_is_refused_as_one(metered: Metered) -> None:
    key = metered.key(tokens_per_day=20)
    answer = metered.ask(key, "/v1/completions", model="scripted", prompt=["one two"] * 5, max_tokens=3)
    assert answer.status_code == 429
    metered.wait_until_settled()
    with contextlib.suppress(openai.RateLimitError):
        assert metered.ask(key, "/v1/completions", model="scripted", prompt="a", max_tokens=1).status_code == 200
