"""Batches over routes that are scripted: what goes wrong, what stops them, and how they go on."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from corral.errors import KeyRefused
from corral.protocol.openai.batches import BatchFields, new_batch
from corral.server import batch_files, batch_runner
from corral.server.batch_runner import NUM_AT_ONCE, BatchRunner
from corral.server.batch_store import ENDED, BatchStore
from corral.server.caller import Caller
from corral.server.database import Database
from corral.server.file_store import FileStore
from corral.server.lifecycle import Lifecycle

Answer = tuple[int, dict[str, str], Any]  # status, headers, body
ENDPOINT = "/v1/chat/completions"


def refusal(status: int, code: str, **headers: str) -> Answer:
    return status, headers, {"error": {"code": code, "message": "no"}}


class Stage:
    """A data folder with its batches, and the routes behind them.

    `answer` is asked with (owner, body); by default it says the body's "say" again.
    """

    def __init__(self, database_url: str | None = None) -> None:
        self.store = BatchStore(FileStore(Database(database_url)))
        self.lifecycle = Lifecycle()
        self.runner = BatchRunner(self.app, self.store, self.lifecycle, self.caller_of)
        self.refusal = ""
        self.answer: Callable[[str, dict[str, Any]], Awaitable[Answer]] = self.echo
        self.asked: list[str] = []
        self.num_running = self.most_running = 0

    def caller_of(self, owner: str) -> Caller:
        if self.refusal:
            raise KeyRefused(self.refusal)
        return Caller(owner=owner, name="the key's")

    async def echo(self, _: str, body: dict[str, Any]) -> Answer:
        return 200, {}, {"said": body["say"]}

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        message: Message = await receive()
        body = json.loads(message["body"])
        self.asked.append(body["say"])
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        status, headers, reply = await self.answer(scope["corral.caller"].owner, body)
        self.num_running -= 1
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode()})

    async def submit(self, *names: str, owner: str = "me", expires_at: float | None = None) -> str:
        lines = [{"custom_id": n, "method": "POST", "url": ENDPOINT, "body": {"say": n}} for n in names]
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        file = await asyncio.to_thread(self.store.files.add, owner, io.BytesIO(content), "in.jsonl", "batch", None)
        assert file is not None
        fields = BatchFields(input_file_id=file["id"], endpoint=ENDPOINT, completion_window="24h")
        batch = new_batch(f"batch_{file['id'][5:]}", fields, int(time.time()))
        if expires_at is not None:
            batch["expires_at"] = int(expires_at)
        await asyncio.to_thread(self.store.create, owner, batch, None)
        self.runner.wake()
        return str(batch["id"])

    async def batch(self, batch_id: str, owner: str = "me") -> dict[str, Any]:
        found = await asyncio.to_thread(self.store.get, owner, batch_id)
        assert found is not None
        return found

    async def ended(self, batch_id: str, owner: str = "me") -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                batch = await self.batch(batch_id, owner)
                if batch["status"] in ENDED:
                    return batch

    def results(self, batch: dict[str, Any], field: str = "output_file_id") -> dict[str, Any]:
        if batch[field] is None:
            return {}
        lines = [json.loads(line) for line in self.store.files.path(batch[field]).read_text().splitlines()]
        found = {line["custom_id"]: line for line in lines}
        assert len(found) == len(lines), "no line is answered twice"
        return found

    def restarted(self) -> Stage:
        """Another server on the same data folder."""
        stage = Stage()
        stage.runner.start()
        return stage


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    made = Stage()
    yield made
    await made.runner.close()


async def test_few_lines_run_at_once_and_all_are_answered_once(stage: Stage) -> None:
    arrived = asyncio.Semaphore(0)

    async def slowly(owner: str, body: dict[str, Any]) -> Answer:
        assert owner == "me"
        if stage.num_running == NUM_AT_ONCE:
            for _ in range(NUM_AT_ONCE):
                arrived.release()
        await arrived.acquire()
        return 200, {}, {"said": body["say"]}

    stage.answer = slowly
    names = [str(n) for n in range(5 * NUM_AT_ONCE)]
    batch = await stage.ended(await stage.submit(*names))
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": len(names), "completed": len(names), "failed": 0}
    assert stage.results(batch).keys() == set(names)
    assert stage.most_running == NUM_AT_ONCE
    await stage.runner.close()
    assert not (stage.store.work_folder / batch["id"]).exists()


async def test_a_busy_server_is_asked_again_and_other_refusals_are_answers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_runner, "MAX_BACK_OFF_S", 0.01)
    refusals = {
        "busy": [
            refusal(503, "queue_full", retry_after="1"),
            refusal(429, "key_queue_full", retry_after="1"),
            refusal(503, "server_draining", retry_after="soon"),
            refusal(429, "rate_limit_exceeded", retry_after="1"),
            refusal(429, "insufficient_quota", retry_after="9999"),
        ],
        "huge": [refusal(503, "insufficient_memory")],
        "bad": [refusal(400, "invalid_value")],
        "too large": [refusal(429, "rate_limit_exceeded")] * 20,
        "deadly": [refusal(503, "engine_dead")] * 20,
    }

    async def answer(_: str, body: dict[str, Any]) -> Answer:
        waiting = refusals.get(body["say"])
        return waiting.pop(0) if waiting else (200, {}, {"said": body["say"]})

    stage.answer = answer
    batch = await stage.ended(await stage.submit("busy", "huge", "bad", "too large", "deadly", "good"))
    assert batch["status"] == "completed"
    assert stage.results(batch).keys() == {"busy", "good"}
    errors = stage.results(batch, "error_file_id")
    statuses = {name: line["response"]["status_code"] for name, line in errors.items()}
    assert statuses == {"huge": 503, "bad": 400, "too large": 429, "deadly": 503}
    assert stage.asked.count("deadly") == batch_runner.MAX_DEATHS + 1


async def test_a_batch_whose_key_is_revoked_fails_with_the_reason_and_keeps_what_it_has(stage: Stage) -> None:
    async def answer(_: str, body: dict[str, Any]) -> Answer:
        stage.refusal = "the API key has been revoked"
        return 200, {}, {"said": body["say"]}

    stage.answer = answer
    names = [str(n) for n in range(5 * NUM_AT_ONCE)]
    batch = await stage.ended(await stage.submit(*names))
    assert batch["status"] == "failed"
    [error] = batch["errors"]["data"]
    assert (error["code"], error["message"]) == ("invalid_api_key", "the API key has been revoked")
    done = stage.results(batch).keys()
    assert 0 < len(done) <= NUM_AT_ONCE
    assert done == set(stage.asked)
    assert batch["request_counts"]["completed"] == len(done)


async def test_a_cancelled_batch_keeps_what_it_has(stage: Stage) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: str, body: dict[str, Any]) -> Answer:
        if body["say"] != "0":
            reached.set()
            await go_on.wait()
        return 200, {}, {"said": body["say"]}

    stage.answer = answer
    batch_id = await stage.submit(*(str(n) for n in range(20)))
    await reached.wait()
    cancelling = await asyncio.to_thread(stage.store.cancel, "me", batch_id)
    assert cancelling is not None
    assert cancelling["status"] == "cancelling"
    stage.runner.cancel(batch_id)
    go_on.set()
    batch = await stage.ended(batch_id)
    assert batch["status"] == "cancelled"
    assert 1 <= len(stage.results(batch)) <= NUM_AT_ONCE + 1
    assert batch["request_counts"]["completed"] == len(stage.results(batch))
    assert await asyncio.to_thread(stage.store.cancel, "me", batch_id) == batch, "what has ended stays as it is"
    assert await asyncio.to_thread(stage.store.cancel, "another", batch_id) is None


async def test_a_cancel_while_the_server_is_busy_is_heard_at_once(stage: Stage) -> None:
    asked = asyncio.Event()

    async def answer(_: str, __: dict[str, Any]) -> Answer:
        asked.set()
        return refusal(503, "queue_full", retry_after="30")

    stage.answer = answer
    batch_id = await stage.submit("a", "b")
    await asked.wait()
    await asyncio.to_thread(stage.store.cancel, "me", batch_id)
    stage.runner.cancel(batch_id)
    assert (await stage.ended(batch_id))["status"] == "cancelled"


async def test_a_key_over_its_quota_does_not_hold_up_the_others(stage: Stage) -> None:
    async def answer(owner: str, body: dict[str, Any]) -> Answer:
        if owner == "greedy":
            return refusal(429, "insufficient_quota", retry_after="3600")
        return 200, {}, {"said": body["say"]}

    stage.answer = answer
    waiting = await stage.submit(*map(str, range(2 * NUM_AT_ONCE)), owner="greedy")
    while len(stage.asked) < NUM_AT_ONCE:
        await stage.batch(waiting, "greedy")
    batch = await stage.ended(await stage.submit("a", "b"))
    assert stage.results(batch).keys() == {"a", "b"}
    assert (await stage.batch(waiting, "greedy"))["status"] == "in_progress"


async def test_an_expired_batch_says_which_lines_were_not_run(stage: Stage) -> None:
    batch = await stage.ended(await stage.submit("a", "b", expires_at=time.time() - 1))
    assert batch["status"] == "expired"
    errors = stage.results(batch, "error_file_id")
    assert {name: line["error"]["code"] for name, line in errors.items()} == dict.fromkeys("ab", "batch_expired")
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}


async def test_a_drained_server_leaves_its_batch_to_the_next_one(stage: Stage) -> None:
    names = [str(n) for n in range(30)]

    async def answer(_: str, body: dict[str, Any]) -> Answer:
        if len(stage.asked) == 10:
            stage.lifecycle.stop()
        return 200, {}, {"said": body["say"]}

    stage.answer = answer
    batch_id = await stage.submit(*names)
    await stage.lifecycle.stopping.wait()
    await stage.runner.close()
    assert (await stage.batch(batch_id))["status"] == "in_progress"
    after = stage.restarted()
    batch = await after.ended(batch_id)
    assert batch["status"] == "completed"
    assert after.results(batch).keys() == set(names)
    assert sorted(stage.asked + after.asked, key=int) == names, "no line is run twice"
    await after.runner.close()


async def test_a_torn_line_is_run_again(stage: Stage) -> None:
    folder = stage.store.work_folder / "x"
    folder.mkdir(parents=True)
    batch_files.append_answer(folder, "a", 200, {"said": "a"}, "req_a")
    batch_files.append_answer(folder, "b", 400, {}, "req_b")
    for torn in (b'{"custom_id": "c", "resp', b"\0\0\0\0\n", b'["c"]\n'):
        with (folder / batch_files.OUTPUT).open("ab") as file:
            file.write(torn)
        assert batch_files.recover(folder) == ({"a", "b"}, {"completed": 1, "failed": 1})
    assert (folder / batch_files.OUTPUT).read_bytes().endswith(b"}\n")


async def test_a_full_disk_fails_its_batch_and_no_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    append = batch_files.append_answer

    def full_for_one(folder: Path, custom_id: str, status: int, body: Any, request_id: str) -> bool:
        if custom_id == "doomed":
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(folder, custom_id, status, body, request_id)

    monkeypatch.setattr(batch_files, "append_answer", full_for_one)
    failed, fine = await stage.submit("doomed"), await stage.submit("a", "b")
    batch = await stage.ended(failed)
    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["code"] == "server_error"
    assert (await stage.ended(fine))["status"] == "completed"


async def test_batches_of_several_owners_run_side_by_side(stage: Stage) -> None:
    both = asyncio.Event()
    owners: set[str] = set()

    async def answer(owner: str, body: dict[str, Any]) -> Answer:
        owners.add(owner)
        if len(owners) == 2:
            both.set()
        if body["say"].endswith("1"):  # the second line of each waits for the other owner
            await both.wait()
        return 200, {}, {"said": body["say"]}

    stage.answer = answer
    first = await stage.submit(*(f"a{n}" for n in range(40)), owner="me")
    second = await stage.submit(*(f"b{n}" for n in range(40)), owner="you")
    assert (await stage.ended(first))["status"] == "completed"
    assert (await stage.ended(second, "you"))["status"] == "completed"
    assert await asyncio.to_thread(stage.store.get, "you", first) is None


async def test_only_one_server_of_a_folder_runs_its_batches(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "LOCK_RETRY_S", 0.01)
    await stage.ended(await stage.submit("a"))  # it holds the lock from now on
    other = Stage()
    batch_id = await other.submit("b")
    stage.runner.wake()
    await stage.ended(batch_id)
    assert (stage.asked, other.asked) == (["a", "b"], [])
    await stage.runner.close()
    assert (await other.ended(await other.submit("c")))["status"] == "completed"
    await other.runner.close()


async def test_what_nobody_owns_is_swept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    add, files = stage.store.files.add, stage.store.files
    kept = await asyncio.to_thread(add, "me", io.BytesIO(b"x"), "x", "batch", 3600)
    assert kept is not None
    orphan, folder = files.path("file-orphan"), stage.store.work_folder / "batch_orphan"
    orphan.write_bytes(b"y")
    folder.mkdir(parents=True)
    await asyncio.to_thread(stage.store.sweep)
    assert orphan.exists(), "it may be on its way"
    now = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: now)
    await asyncio.to_thread(stage.store.sweep)
    assert not orphan.exists()
    assert not folder.exists()
    assert not files.path(kept["id"]).exists(), "it has expired"


async def test_pages(stage: Stage) -> None:
    made = [
        await asyncio.to_thread(stage.store.files.add, "me", io.BytesIO(b"x"), str(n), "user_data", None)
        for n in range(5)
    ]
    ids = [file["id"] for file in made if file]

    def page(**query: Any) -> tuple[list[str], bool] | None:
        query = {"after": None, "limit": 2, "is_newest_first": False, "purpose": None} | query
        found = stage.store.files.page(query.pop("owner", "me"), **query)
        return None if found is None else ([file["id"] for file in found[0]], found[1])

    assert page() == (ids[:2], True)
    assert page(after=ids[1], limit=3) == (ids[2:], False)
    assert page(is_newest_first=True, after=ids[3]) == ([ids[2], ids[1]], True)
    assert page(purpose="batch") == ([], False)
    assert page(owner="you") == ([], False)
    assert page(owner="you", after=ids[0]) is None
