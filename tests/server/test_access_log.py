"""The access log of a live server, and what else is logged while its requests are under way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from corral.server.caller import Role
from corral.server.database import Database
from corral.server.exchange import Exchange
from corral.server.keys.audit import Actor
from corral.server.keys.key import NewKey
from corral.server.keys.store import KeyStore
from corral.server.logs.access import AccessLog
from tests.support.live_server import LiveServer, chat_body, live_server
from tests.support.logged import Log, logged

CHAT = "/v1/chat/completions"


def ask(server: LiveServer, path: str = CHAT, **given: Any) -> httpx.Response:
    return httpx.post(server.url + path, timeout=60, **given)


def access(log: Log, request_id: str) -> dict[str, Any]:
    [line] = [line for line in log.of("corral.access") if line["request_id"] == request_id]
    return line


def test_a_line_a_request() -> None:
    with logged() as log, live_server() as server:
        ids = [
            ask(server, json=chat_body("hello there")).headers["x-request-id"],
            ask(server, json=chat_body("hello there", stream=True)).headers["x-request-id"],
            ask(server, json=chat_body("hi", model="none")).headers["x-request-id"],
            ask(server, content=b"{").headers["x-request-id"],
            ask(server, "/v1/nothing%0ahere?token=hidden", json={}).headers["x-request-id"],
            ask(server, "/v1/embeddings", json={"model": "scripted", "input": "a b c"}).headers["x-request-id"],
        ]
    whole, stream, unknown, broken, lost, embedded = (access(log, request_id) for request_id in ids)
    for line in (whole, stream):
        assert (line["level"], line["method"], line["path"], line["status"]) == ("info", "POST", CHAT, 200)
        assert (line["model"], line["prompt_tokens"], line["completion_tokens"]) == ("scripted", 2, 2)
        assert 0 < line["ttft_s"] <= line["seconds"]
        assert "cause" not in line
        assert "scripted 2+2 tokens" in line["message"]
    assert (unknown["status"], unknown["cause"]) == (404, "model_not_found")
    assert (broken["status"], broken["cause"]) == (400, "invalid_json")
    assert (lost["path"], lost["message"].split()[:3]) == ("/v1/nothing\nhere", ["POST", "/v1/nothing\\nhere", "404"])
    assert (embedded["prompt_tokens"], embedded["status"]) == (3, 200)
    assert "hidden" not in log.text


def test_text_is_a_line_too() -> None:
    with logged(log_format="text") as log, live_server() as server:
        request_id = ask(server, json=chat_body("hello")).headers["x-request-id"]
        ask(server, "/x%0a2026-01-01 00:00:00 error: forged", json={})
    [line] = [line for line in log.text.splitlines() if request_id in line]
    assert f" POST {CHAT} 200 scripted 1+1 tokens " in line
    assert not [line for line in log.text.splitlines() if line.startswith("2026-01-01")]


def test_probes_are_silent_unless_they_fail() -> None:
    for level, told in (("info", 0), ("debug", 3)):
        with logged(log_level=level) as log, live_server() as server:
            for path in ("/health", "/livez", "/ready"):
                assert httpx.get(server.url + path).status_code == 200
        assert len(log.of("corral.access")) == told
    observer = AccessLog()
    with logged() as log:
        observer.on_end(Exchange(method="GET", path="/ready", status=503, refusal="server_draining", is_whole=True))
        observer.on_end(Exchange(method="GET", path="/metrics", status=200, is_whole=True))
    [line] = log.lines
    assert (line["path"], line["cause"]) == ("/ready", "server_draining")


def test_without_an_access_log_the_rest_is_there() -> None:
    with logged(access_log=False) as log, live_server() as server:
        ask(server, json=chat_body("hello"))
        ask(server, json=chat_body("crash"))
    assert not log.of("corral.access")
    assert log.of("corral.worker")


def test_a_client_that_leaves_is_told() -> None:
    with logged() as log, live_server() as server:
        with httpx.stream("POST", server.url + CHAT, json=chat_body("forever", stream=True), timeout=60) as response:
            next(response.iter_bytes())
            request_id = response.headers["x-request-id"]
        server.wait_until(lambda stats: stats.num_requests == 0)
    line = access(log, request_id)
    assert (line["status"], line["cause"]) == (200, "client_gone")


def test_what_is_logged_in_between_names_the_request() -> None:
    with logged() as log, live_server() as server:
        crash = ask(server, json=chat_body("crash"), headers={"X-Request-Id": "mine-1"})
        died = ask(server, json=chat_body("die"), headers={"X-Request-Id": "mine-2"})
        ask(server, json=chat_body("hello"))
    assert (crash.status_code, died.status_code) == (500, 422)
    # The worker tells the error by the engine's id; here it is known whose that is.
    [failed] = [line for line in log.of("corral.worker") if "exception" in line]
    assert (failed["request_id"], failed["level"]) == ("mine-1", "error")
    assert failed["exception"].endswith("ZeroDivisionError")
    replays = [line for line in log.of("corral.server") if "goes on in the next one" in line["message"]]
    assert {line["request_id"] for line in replays} == {"mine-2"}
    assert access(log, "mine-2")["replays"] == len(replays)
    # What happens to worker and model is no single request's.
    about_models = [line for line in log.of("corral.server") if line["message"].startswith("loaded ")]
    assert len(about_models) > 1
    assert all("request_id" not in line for line in about_models)


def test_batches_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    with Database(url).for_now() as database:
        _, secret = KeyStore(database).create(NewKey("=ci", Role.USER), Actor("tester"))
    line = {"custom_id": "a", "method": "POST", "url": CHAT, "body": chat_body("hi there")}
    with (
        logged() as log,
        live_server(database_url=url) as server,
        openai.OpenAI(base_url=server.base_url, api_key=secret, max_retries=0) as client,
    ):
        file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
        batch: Any = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while batch.status != "completed":
            batch = client.batches.retrieve(batch.id)
        [answer] = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
    told = access(log, answer["response"]["request_id"])
    assert (told["path"], told["key"], told["completion_tokens"]) == (CHAT, "=ci", 2)
    assert secret not in log.text
