from __future__ import annotations

import os
import signal

import httpx

from tests.support.live_server import chat_body, error_of, live_server


def test_death_in_mid_stream_is_an_error_event() -> None:
    with live_server() as server:
        body = chat_body("hold", stream=True)
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body) as response:
            lines = response.iter_lines()
            while "held" not in next(lines):
                continue
            os.kill(server.worker_pid(), signal.SIGKILL)
            rest = [line for line in lines if line]
        assert len(rest) == 1
        assert '"code":"engine_dead"' in rest[0]
        assert "SIGKILL" not in rest[0]  # how it died is the operator's business


def test_death_before_the_first_word_is_503() -> None:
    with live_server() as server:
        for stream in (False, True):
            url = f"{server.base_url}/chat/completions"
            response = httpx.post(url, json=chat_body("die", stream=stream))
            assert (response.status_code, error_of(response)["code"]) == (503, "engine_dead")
            assert int(response.headers["retry-after"]) > 0
            while httpx.post(url, json=chat_body("alive?")).status_code == 503:
                continue
