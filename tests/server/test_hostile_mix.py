"""Some of the hostile requests that tests/e2e/test_hostile_load.py sends to a real model, here to a scripted one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.support import hostile_client
from tests.support.hostile_client import send_all
from tests.support.hostile_requests import Hostility
from tests.support.live_server import chat_body, live_server

NUM_REQUESTS = 400
KEY = "hostile-key"


def test_no_request_is_answered_with_a_fault_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    monkeypatch.setattr(hostile_client, "WAIT_S", 1.0)
    haste = {"head_timeout_s": 0.3, "body_timeout_s": 0.3, "write_timeout_s": 0.3}
    with live_server(api_keys=(KEY,), max_body_bytes=1 << 20, **haste) as server:  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {KEY}"}
        report = asyncio.run(send_all(server.address, Hostility("scripted", KEY, 1), range(NUM_REQUESTS), at_once=16))
        assert not report.faults
        assert report.statuses.total() == NUM_REQUESTS
        assert {200, 400, 401, 404, 405} <= set(report.statuses)
        stats = server.wait_until(lambda stats: stats.num_requests == 0)
        assert stats.num_used_blocks == 0
        answer = httpx.post(f"{server.base_url}/chat/completions", json=chat_body("still here"), headers=headers)
        assert answer.json()["choices"][0]["message"]["content"] == "STILL HERE"
