"""`corral serve` as a service manager sees it: its streams, its address, its orderly end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import httpx
import pytest

from tests.cli.conftest import environment
from tests.support.models import model_path

pytestmark = pytest.mark.e2e


def test_a_server_starts_answers_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "corral", "serve", str(model_path("smollm2-135m")), "--served-model-name", "tiny"]
    settings = environment(CORRAL_PORT="0", CORRAL_API_KEY="first,second")
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = None
        while url is None:
            line = process.stderr.readline()
            assert line, f"the server ended with {process.wait()}"
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
        with httpx.Client(base_url=url[0], headers={"Authorization": "Bearer second"}, timeout=120) as client:
            assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
            body = {"model": "tiny", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
            answer = client.post("/v1/chat/completions", json=body).json()
            assert answer["usage"]["completion_tokens"] > 0
            assert client.get("/v1/models", headers={"Authorization": "Bearer third"}).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
        assert process.stdout.read() == ""
