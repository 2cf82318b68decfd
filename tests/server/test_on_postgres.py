"""What SQLite keeps by default, PostgreSQL keeps too: responses, files, batches, and a server's keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from corral.server.database import Database
from corral.server.keys.audit import Actor
from corral.server.keys.key import NewKey
from corral.server.keys.store import KeyStore
from corral.server.response_store import Limits, ResponseStore, StoredResponse
from tests.server.databases import database_url, postgres
from tests.server.test_batch_runner import Stage
from tests.support.live_server import live_server

__all__ = ["database_url", "postgres"]


def response(number: int, previous: int | None = None) -> StoredResponse:
    items = [{"id": f"msg_{number}", "content": "ä" * 10}]
    previous_id = None if previous is None else f"resp_{previous}"
    fields = {"id": f"resp_{number}", "created_at": int(time.time()), "previous_response_id": previous_id}
    return StoredResponse({**fields, "output": [{"id": f"out_{number}"}]}, items)


async def test_responses(database_url: str) -> None:
    database = Database(database_url)
    store = ResponseStore(database, Limits(max_responses=3))
    try:
        for number in range(5):
            await store.save("me", response(number, number - 1 if number > 2 else None))
        assert await store.find("me", "resp_0") is None
        assert await store.find("other", "resp_4") is None
        found = await store.find("me", "resp_4")
        assert found is not None
        assert found == response(4, 3) or found.body["created_at"] != response(4, 3).body["created_at"]
        assert [item["id"] for item in await store.history("me", "resp_3")] == ["msg_2", "out_2", "msg_3", "out_3"]
        assert (await store.find_items("me", ["out_4"])).keys() == {"msg_4", "out_4"}
        assert await store.delete("me", "resp_4")
        assert not await store.delete("me", "resp_4")
        assert await store.find_items("me", ["out_4"]) == {}, "its items went with it"
    finally:
        await database.close()


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> AsyncIterator[Stage]:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "home"))
    made = Stage(database_url)
    yield made
    await made.runner.close()
    await made.store.files.database.close()


async def test_batches(stage: Stage) -> None:
    names = [str(number) for number in range(30)]
    batches = [await stage.submit(*names), await stage.submit(*names)]
    for batch_id in batches:
        batch = await stage.ended(batch_id)
        assert batch["request_counts"] == {"total": 30, "completed": 30, "failed": 0}
        assert stage.results(batch).keys() == set(names)
    page = await asyncio.to_thread(
        lambda: stage.store.page("me", after=batches[1], limit=1, is_newest_first=True)  # the older one
    )
    assert page is not None
    assert [batch["id"] for batch in page[0]] == [batches[0]]


async def test_changes_of_a_batch_at_once_lose_nothing(stage: Stage) -> None:
    stage.lifecycle.stopping.set()  # nobody runs it
    batch_id = await stage.submit("a")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: stage.store.save_counts(batch_id, {f"count {n}": n}), range(20)))
    counts = (await stage.batch(batch_id))["request_counts"]
    assert {f"count {n}": n for n in range(20)}.items() <= counts.items()


@pytest.mark.slow
def test_a_server_asks_for_keys_of_postgres(postgres: str) -> None:
    with Database(postgres).for_now() as database:
        store = KeyStore(database)
        _, secret = store.create(NewKey("server"), Actor("user tester"))
        with live_server(database_url=postgres) as server:
            headers = {"X-Api-Key": secret}
            assert httpx.get(f"{server.base_url}/models").status_code == 401
            assert httpx.get(f"{server.base_url}/models", headers=headers).status_code == 200
            store.revoke("server", Actor("user tester"))
            deadline = time.monotonic() + 60
            while httpx.get(f"{server.base_url}/models", headers=headers).status_code != 401:
                assert time.monotonic() < deadline
