"""Files and batches through the official client; only the model is scripted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.live_server import LiveServer, chat_body, live_server

ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    with live_server(api_keys=("one", "two")) as running:
        yield running


def client_of(server: LiveServer, key: str = "one") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0, timeout=60)


def line(custom_id: str, **body: Any) -> bytes:
    fields = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps({**fields, "body": chat_body(f"hi {custom_id}", **body)}).encode() + b"\n"


def run(client: openai.OpenAI, content: bytes) -> Any:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch: Any = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    for _ in range(2000):
        if batch.status in ENDED:
            return batch
        batch = client.batches.retrieve(batch.id)
    raise AssertionError(f"the batch is still {batch.status}")


def test_files(server: LiveServer) -> None:
    client = client_of(server)
    file = client.files.create(file=("../../etc/x.jsonl", b"hello"), purpose="user_data")
    assert (file.filename, file.bytes) == ("x.jsonl", 5)
    assert client.files.content(file.id).read() == b"hello"
    assert [f.id for f in client.files.list()] == [file.id]
    with pytest.raises(openai.NotFoundError):
        client_of(server, "two").files.content(file.id)
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_a_batch(server: LiveServer) -> None:
    client = client_of(server)
    batch = run(client, b"".join(line(str(n)) for n in range(10)) + line("bad", temperature=-1))
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (11, 10, 1)
    results = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
    said = {r["custom_id"]: r["response"]["body"]["choices"][0]["message"]["content"] for r in results}
    assert said == {str(n): f"HI {n}" for n in range(10)}
    [error] = [json.loads(text) for text in client.files.content(batch.error_file_id).text.splitlines()]
    assert (error["custom_id"], error["response"]["status_code"]) == ("bad", 400)
    assert [b.id for b in client.batches.list()] == [batch.id]
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("content", "code", "number"),
    [
        (b"", "empty_file", None),
        (b"\xff\xfe\n", "invalid_json_line", 1),
        (line("a") + line("a"), "duplicate_custom_id", 2),
        (line("a") + line("b").replace(b"/v1/chat", b"/v1/cat"), "invalid_url", 2),
        (line("a", stream=True), "invalid_body", 1),
    ],
)
def test_a_bad_input_fails_with_its_line(server: LiveServer, content: bytes, code: str, number: int | None) -> None:
    batch = run(client_of(server), content)
    assert batch.status == "failed"
    assert [(e.code, e.line) for e in batch.errors.data] == [(code, number)]


def test_a_batch_is_cancelled(server: LiveServer) -> None:
    client = client_of(server)
    lines = [line(str(n), messages=[{"role": "user", "content": "hold"}]) for n in range(8)]
    file = client.files.create(file=("in.jsonl", b"".join(lines)), purpose="batch")
    batch: Any = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status == "validating":
        batch = client.batches.retrieve(batch.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    while batch.status not in ENDED:
        client.chat.completions.create(**chat_body("release"))
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "cancelled"
    assert batch.request_counts.completed <= 4, "what was in flight is finished, and nothing else begun"
    with pytest.raises(openai.NotFoundError):
        client_of(server, "two").batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/models"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"a": "b" * 600}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_no_batch_is_refused(server: LiveServer, fields: dict[str, Any], param: str) -> None:
    client = client_of(server)
    file = client.files.create(file=("in.jsonl", line("a")), purpose="batch")
    asked = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h", **fields}
    with pytest.raises(openai.APIStatusError) as caught:
        client.post("/batches", body=asked, cast_to=object)
    assert caught.value.status_code in (400, 404)
    assert caught.value.param == param


def test_pages_are_bounded(server: LiveServer) -> None:
    client = client_of(server)
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=batch_none"):
        with pytest.raises(openai.APIStatusError) as caught:
            client.get(f"/batches?{query}", cast_to=object)
        assert caught.value.status_code in (400, 404), query
