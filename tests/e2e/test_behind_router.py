"""Two servers behind vllm-router, restarted in turn under load: no request fails, and no answer is another one."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.models import model_path
from tests.support.serve_process import ServeProcess

pytest.importorskip("vllm_router", reason="pip install corral[clients]")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NAME = "smollm2"
KEY = "secret"  # the router passes on what its clients send
NUM_CLIENTS = 4
QUESTIONS = [f"Write a sentence about the number {number}." for number in range(6)]
# Asked every second; three periods after SIGTERM it has noticed.
ROUTER_FLAGS = (
    *("--health-check-interval-secs", "1", "--health-failure-threshold", "1", "--health-success-threshold", "1"),
    "--disable-retries",  # what it would ask twice would hide what is lost
)
DRAIN_DELAY_S = "3"
TIMEOUT_S = 120.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Replica:
    """A server at one port, in its next life after each restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self.start()

    def start(self) -> None:
        flags = (
            "--served-model-name",
            NAME,
            "--max-model-len",
            "1024",
            "--drain-delay",
            DRAIN_DELAY_S,
            "--api-key",
            KEY,
        )
        model = str(model_path("smollm2-135m"))
        self._process = ServeProcess(model, *flags, "--port", str(self.port), folder=self._folder)

    def wait_ready(self) -> None:
        self._process.url()
        assert httpx.get(f"{self.url}/ready").status_code == 200

    def stop(self) -> int:
        """Its exit code."""
        code = self._process.stop()
        self._process.close()
        return code

    def close(self) -> None:
        self._process.close()


class Router:
    """vllm-router before them."""

    def __init__(self, policy: str, replicas: list[Replica], log: Path) -> None:
        self.port = free_port()
        command = [
            *(str(Path(sys.executable).with_name("vllm-router")), "--policy", policy, "--port", str(self.port)),
            *("--prometheus-port", str(free_port()), "--worker-urls", *(replica.url for replica in replicas)),
            *ROUTER_FLAGS,
        ]
        self._log = log.open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_healthy(self, wanted: set[str]) -> None:
        """Until it sends requests to these, and to no others."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._healthy() != wanted:
            assert self._process.poll() is None, "the router ended"
            assert time.monotonic() < deadline, f"the router never saw that {wanted} are healthy"
            time.sleep(0.05)

    def _healthy(self) -> set[str] | None:
        with contextlib.suppress(httpx.TransportError):
            workers: list[dict[str, Any]] = httpx.get(f"{self.url}/workers").json()["workers"]
            return {worker["url"] for worker in workers if worker["is_healthy"]}
        return None

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Load:
    """Clients that ask without a pause, every other time for a stream."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._is_over = threading.Event()
        self.expected: dict[str, str] = {}
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(NUM_CLIENTS)]

    def ask(self, client: openai.OpenAI, question: str, *, stream: bool) -> str:
        fields: Any = {
            "model": NAME,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 24,
        }
        if not stream:
            return client.chat.completions.create(**fields).choices[0].message.content or ""
        with client.chat.completions.create(stream=True, **fields) as chunks:
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    def start(self) -> None:
        with self._client() as client:
            self.expected = {question: self.ask(client, question, stream=False) for question in QUESTIONS}
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "a request hangs"

    def wait_for(self, num_more: int) -> None:
        """Until so many requests more have come to their end."""
        wanted, deadline = self.outcomes.total() + num_more, time.monotonic() + TIMEOUT_S
        while self.outcomes.total() < wanted:
            assert time.monotonic() < deadline, f"no more answers; so far {self.outcomes} {self.faults[:3]}"
            time.sleep(0.05)

    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self._base_url}/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S)

    def _run(self, number: int) -> None:
        with self._client() as client:
            for turn in itertools.count(number):
                if self._is_over.is_set():
                    return
                question = QUESTIONS[turn % len(QUESTIONS)]
                try:
                    answer = self.ask(client, question, stream=turn % 2 == 0)
                except Exception as error:  # noqa: BLE001 - all that a client can see of a fault
                    self.outcomes["failed"] += 1
                    self.faults.append(f"{type(error).__name__}: {error}")
                    continue
                self.outcomes["good" if answer == self.expected[question] else "different"] += 1


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[list[Replica]]:
    made = [Replica(tmp_path / str(number)) for number in range(2)]
    try:
        for replica in made:
            replica.wait_ready()
        yield made
    finally:
        for replica in made:
            replica.close()


@pytest.mark.parametrize("policy", ["round_robin", "cache_aware"])
def test_no_request_fails_while_servers_are_restarted_in_turn(
    replicas: list[Replica], tmp_path: Path, policy: str
) -> None:
    everybody = {replica.url for replica in replicas}
    router, load = Router(policy, replicas, tmp_path / "router.log"), None
    try:
        router.wait_healthy(everybody)
        load = Load(router.url)
        load.start()
        load.wait_for(8)
        for replica in [*replicas, *replicas]:
            assert replica.stop() == 0
            router.wait_healthy(everybody - {replica.url})
            load.wait_for(8)  # the other one alone serves
            replica.start()
            replica.wait_ready()
            router.wait_healthy(everybody)
            load.wait_for(8)
    finally:
        if load is not None:
            load.end()
        router.close()
    assert load is not None
    print(f"{policy}: {dict(load.outcomes)}")
    assert load.faults == []
    assert set(load.outcomes) == {"good"}
