"""`corral serve` as users run it: keys, SIGTERM, a killed worker."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

import httpx
import openai
import psutil
import pytest

from tests.support.models import model_path

pytestmark = pytest.mark.e2e

NAME = "smollm2"
KEY = "secret-key"
QUESTION: Any = [{"role": "user", "content": "Count from 1 to 30."}]


class Serving:
    def __init__(self, *flags: str, **environment: str) -> None:
        path = str(model_path("smollm2-135m"))
        command = [sys.executable, "-m", "corral", "serve", path, "--port", "0", "--served-model-name", NAME, *flags]
        env = {**os.environ, "NO_COLOR": "1", **environment}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stderr is not None
        self.stderr: IO[str] = self.process.stderr

    def wait_ready(self) -> None:
        said = []
        for line in self.stderr:
            said.append(line)
            if found := re.search(r"http://[^\s,]+", line):
                self.url = found.group()
                break
        else:
            raise AssertionError("the server ended: " + "".join(said))
        assert "users at once" in "".join(said)  # the plan comes before the load
        self.worker = psutil.Process(self.process.pid).children()[0]

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=300)

    def rest_of_stderr(self) -> str:
        return self.stderr.read()


@contextlib.contextmanager
def serving(*flags: str, **environment: str) -> Iterator[Serving]:
    server = Serving(*flags, **environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def test_keys_from_flag_and_environment() -> None:
    for flags, environment in ((("--api-key", KEY, "--api-key", "other"), {}), ((), {"CORRAL_API_KEY": KEY})):
        with serving(*flags, **environment) as server:
            server.wait_ready()
            with server.client(KEY) as client:
                assert client.models.list().data[0].id == NAME
            with server.client("wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
                client.chat.completions.create(model=NAME, messages=QUESTION)
            assert caught.value.code == "invalid_api_key"
            assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_beyond_loopback_without_a_key_is_refused() -> None:
    with serving("--host", "0.0.0.0") as server:
        said = server.rest_of_stderr()
        assert server.process.wait(60) != 0
    assert "--no-auth" in said
    assert "Traceback" not in said


def test_sigterm_finishes_the_streams_in_flight() -> None:
    with serving() as server:
        server.wait_ready()
        with server.client() as client:
            fields: Any = {"model": NAME, "messages": QUESTION, "temperature": 0, "max_tokens": 60}
            undisturbed = client.chat.completions.create(**fields).choices[0].message.content
            with client.chat.completions.create(stream=True, **fields) as stream:
                chunks = [next(stream), next(stream)]
                server.process.send_signal(signal.SIGTERM)
                server.process.send_signal(0)
                refused = None
                for chunk in stream:
                    chunks.append(chunk)
                    if refused is None and httpx.get(f"{server.url}/health").json()["status"] == "draining":
                        refused = httpx.post(f"{server.url}/v1/completions", json={"model": NAME, "prompt": "a"})
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == undisturbed
            assert refused is not None
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
        assert server.process.wait(60) == 0
        psutil.wait_procs([server.worker], timeout=20)
        assert not server.worker.is_running()


def test_a_killed_worker_is_replaced() -> None:
    with serving() as server:
        server.wait_ready()
        with server.client() as client:
            fields: Any = {"model": NAME, "messages": QUESTION, "seed": 3, "max_tokens": 60}
            undisturbed = client.chat.completions.create(**fields).choices[0].message.content
            answer = ""
            with client.chat.completions.create(stream=True, **fields) as stream:
                for number, chunk in enumerate(stream):
                    answer += chunk.choices[0].delta.content or ""
                    if number in (5, 20):
                        psutil.Process(server.process.pid).children()[0].send_signal(
                            signal.SIGKILL if number == 5 else signal.SIGSEGV
                        )
            assert answer == undisturbed
