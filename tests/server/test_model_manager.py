from __future__ import annotations

import os
import signal

import httpx

from tests.support.live_server import chat_body, error_of, live_server


def test_a_stream_outlives_its_worker() -> None:
    with live_server() as server:
        body = chat_body("hold", stream=True)
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body) as response:
            lines = response.iter_lines()
            while "held" not in next(lines):
                continue
            os.kill(server.worker_pid(), signal.SIGKILL)
            server.wait_until(lambda stats: stats.num_requests == 1)  # it is held in the next one
            assert httpx.post(f"{server.base_url}/chat/completions", json=chat_body("release")).status_code == 200
            rest = "".join(lines)
        assert "RELEASED" in rest
        assert "held" not in rest
        assert "error" not in rest


def test_what_ends_two_workers_is_refused() -> None:
    with live_server() as server:
        url = f"{server.base_url}/chat/completions"
        pids = set()
        for stream in (False, True, False):
            response = httpx.post(url, json=chat_body("die", stream=stream), timeout=60)
            assert (response.status_code, error_of(response)["code"]) == (422, "poisonous_request")
            assert "SIGSEGV" not in response.text  # how it died is the operator's business
            pids.add(server.worker_pid())
        assert len(pids) == 1  # the same again is not even tried
        assert httpx.post(url, json=chat_body("alive?")).status_code == 200
