"""Runs batches, one after the other, a few lines at once, so that interactive requests go first.

A batch's folder holds its input, and its output as it comes: what is there when the server starts goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message

from corral.protocol.openai_batches import MAX_ERRORS, MAX_LINE_BYTES, MAX_LINES, LineError, parse_line
from corral.server.file_store import FileStore
from corral.server.lifecycle import Lifecycle

logger = logging.getLogger("corral.server")

NUM_AT_ONCE = 4
MAX_BACK_OFF_S = 30.0
_OUTPUTS = {"output_file_id": "output.jsonl", "error_file_id": "error.jsonl"}


class BatchRunner:
    """Args: app: the routes, without the checks of who may call them."""

    def __init__(self, app: ASGIApp, store: FileStore, lifecycle: Lifecycle) -> None:
        self._app = app
        self._store = store
        self._lifecycle = lifecycle
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self.cancelled: set[str] = set()

    def start(self) -> None:
        """Goes on with what an earlier server left, if there is any."""
        if self._store.work_folder.is_dir() and any(self._store.work_folder.iterdir()):
            self.wake()

    def wake(self) -> None:
        """There is a new batch."""
        self._woken.set()
        if self._task is None:
            self._task = asyncio.ensure_future(self._run_all())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run_all(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                for owner, batch, seconds in await asyncio.to_thread(self._store.unfinished):
                    await self._run(owner, batch, seconds)
            except Exception:
                logger.exception("a batch stopped; it goes on when the server starts again")

    async def _run(self, owner: str, batch: dict[str, Any], seconds: int | None) -> None:
        folder = self._store.work_folder / batch["id"]
        if batch["status"] == "cancelling":
            self.cancelled.add(batch["id"])
        if batch["status"] == "validating":
            total, errors = await asyncio.to_thread(_validate, folder / "input.jsonl", batch["endpoint"])
            batch["request_counts"]["total"] = total
            if errors:
                batch["errors"] = {"object": "list", "data": errors}
                await self._set_status(owner, batch, "failed")
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                return
            await self._set_status(owner, batch, "in_progress")
        done = await asyncio.to_thread(_recover, folder, batch)
        lines = _remaining(folder / "input.jsonl", batch["endpoint"], done)
        async with asyncio.TaskGroup() as group:
            for _ in range(NUM_AT_ONCE):
                group.create_task(self._run_lines(owner, batch, folder, lines))
        if self._lifecycle.is_draining:
            return
        is_cancelled = batch["id"] in self.cancelled
        is_expired = not is_cancelled and sum(batch["request_counts"].values()) < 2 * batch["request_counts"]["total"]
        if is_expired:
            await asyncio.to_thread(_expire, folder, batch, lines)
        await self._set_status(owner, batch, "cancelling" if is_cancelled else "finalizing")
        for field, name in _OUTPUTS.items():
            if (folder / name).exists() and (folder / name).stat().st_size:
                # The same id after a crash: never a second file.
                file_id = f"file-{batch['id'].removeprefix('batch_')}{name[0]}"
                await asyncio.to_thread(self._publish, folder / name, owner, file_id, f"{batch['id']}_{name}", seconds)
                batch[field] = file_id
        status = "cancelled" if is_cancelled else "expired" if is_expired else "completed"
        await self._set_status(owner, batch, status)
        self.cancelled.discard(batch["id"])
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _publish(self, source: Path, owner: str, file_id: str, filename: str, seconds: int | None) -> None:
        self._store.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            os.link(source, self._store.path(file_id))
        self._store.add_row(owner, file_id, filename, "batch_output", seconds)

    async def _set_status(self, owner: str, batch: dict[str, Any], status: str) -> None:
        if batch["id"] in self.cancelled and status == "in_progress":
            status = "cancelling"
        batch["status"] = status
        batch[f"{status}_at"] = batch[f"{status}_at"] or int(time.time())
        await asyncio.to_thread(self._store.save_batch, owner, batch)

    async def _run_lines(
        self, owner: str, batch: dict[str, Any], folder: Path, lines: Iterator[tuple[str, dict[str, Any]]]
    ) -> None:
        while not (self._lifecycle.is_draining or batch["id"] in self.cancelled or time.time() >= batch["expires_at"]):
            if (line := next(lines, None)) is None:
                return
            custom_id, body = line
            answer = await self._ask(owner, batch, body)
            if answer is None:
                return
            status, reply = answer
            is_good = status < 400
            response = {"status_code": status, "request_id": f"req_{secrets.token_hex(12)}", "body": reply}
            path = folder / ("output.jsonl" if is_good else "error.jsonl")
            await asyncio.to_thread(_append, path, _result(custom_id, response, None))
            batch["request_counts"]["completed" if is_good else "failed"] += 1
            if batch["id"] not in self.cancelled:
                await asyncio.to_thread(self._store.save_batch, owner, batch)

    async def _ask(self, owner: str, batch: dict[str, Any], body: dict[str, Any]) -> tuple[int, Any] | None:
        """Status and body; waits while the server is busy; None when the batch is to stop."""
        wait_s = 0.5
        while True:
            status, headers, reply = await call(self._app, batch["endpoint"], msgspec.json.encode(body), owner)
            if status not in (429, 503):
                return status, msgspec.json.decode(reply)
            wait_s = min(MAX_BACK_OFF_S, max(2 * wait_s, float(headers.get(b"retry-after", b"0"))))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lifecycle.stopping.wait(), wait_s)
            if self._lifecycle.is_draining or batch["id"] in self.cancelled or time.time() >= batch["expires_at"]:
                return None


async def call(app: ASGIApp, path: str, body: bytes, owner: str) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of a POST that needs no socket."""
    messages: list[Message] = [{"type": "http.request", "body": body}]
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("nobody disconnects")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode()}
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await app({**scope, "query_string": b"", "headers": headers, "corral.owner": owner}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:])


def _result(custom_id: str, response: object, error: object) -> bytes:
    batch_line = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id}
    return msgspec.json.encode({**batch_line, "response": response, "error": error}) + b"\n"


def _append(path: Path, line: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 2):
            yield line
            while not line.endswith(b"\n") and line:
                line = file.readline(1 << 20)


def _validate(path: Path, endpoint: str) -> tuple[int, list[dict[str, Any]]]:
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    number = 0
    for number, line in enumerate(_lines(path), 1):
        try:
            if number > MAX_LINES:
                raise LineError("too_many_tasks", f"the file has more than {MAX_LINES} lines")
            custom_id, _ = parse_line(line, endpoint)
            if custom_id in seen:
                raise LineError("duplicate_custom_id", f"custom_id {custom_id[:60]!r} came before", "custom_id")
            seen.add(custom_id)
        except LineError as error:
            errors.append({"code": error.code, "message": error.message, "param": error.param, "line": number})
            if len(errors) == MAX_ERRORS or number > MAX_LINES:
                break
    if number == 0:
        errors.append({"code": "empty_file", "message": "the input file is empty", "param": None, "line": None})
    return len(seen), errors


def _recover(folder: Path, batch: dict[str, Any]) -> set[str]:
    """The custom_ids that have an answer; cuts off a line that a crash left half written, and counts anew."""
    done: set[str] = set()
    for name, count in (("output.jsonl", "completed"), ("error.jsonl", "failed")):
        batch["request_counts"][count] = 0
        if not (path := folder / name).exists():
            continue
        whole = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                done.add(msgspec.json.decode(line)["custom_id"])
                batch["request_counts"][count] += 1
        os.truncate(path, whole)
    return done


def _remaining(path: Path, endpoint: str, done: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in _lines(path):
        custom_id, body = parse_line(line, endpoint)
        if custom_id not in done:
            yield custom_id, body


def _expire(folder: Path, batch: dict[str, Any], lines: Iterator[tuple[str, dict[str, Any]]]) -> None:
    lines = _remaining(folder / "input.jsonl", batch["endpoint"], _recover(folder, batch))
    error = {"code": "batch_expired", "message": "the batch expired before this request was run"}
    for custom_id, _ in lines:
        _append(folder / "error.jsonl", _result(custom_id, None, error))
        batch["request_counts"]["failed"] += 1
