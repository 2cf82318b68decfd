"""The whole process: its ready line, its signals, its exit code. Only the model is scripted."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

import httpx
import psutil
import pytest

from corral.config import EngineConfig, ServerConfig
from corral.errors import InvalidConfig
from corral.server.model_names import NamedModels
from corral.server.run import EXIT_DRAIN_CUT, EXIT_INTERRUPTED, Serving, describe, serve
from tests.support import scripted_worker
from tests.support.live_server import chat_body, error_of

CODE = """
import json
import sys
from pathlib import Path
from corral.config import EngineConfig, ServerConfig
from corral.server import model_manager, run
from corral.server.model_names import NamedModels
from corral.store.local_model import LocalModel
from tests.support.scripted_models import ScriptedProbe, read_scripted_needs
class Manager(model_manager.ModelManager):
    def __init__(self, *args, **settings):
        command = tuple(sys.argv[3:])
        super().__init__(*args, **settings, command=command, read_needs=read_scripted_needs, probe=ScriptedProbe())
run.ModelManager = Manager
local = LocalModel("scripted", Path(sys.argv[1]))
serving = run.Serving(NamedModels([local]), (local,))
config = {"port": 0, "drain_timeout_s": 100.0, **json.loads(sys.argv[2])}
sys.exit(run.serve(serving, EngineConfig(), ServerConfig(**config)))
"""


async def test_an_empty_store_says_how_to_get_a_model() -> None:
    assert await describe(Serving(NamedModels([]))) == "no models yet (`corral pull smollm2` gets one)"


class ServerProcess:
    def __init__(self, model: str, config: dict[str, Any]) -> None:
        command = (sys.executable, "-c", CODE, model, json.dumps(config), *scripted_worker.COMMAND)
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
        assert self.process.stderr is not None
        self.stderr: IO[str] = self.process.stderr

    def read_until(self, words: str) -> str:
        for line in self.stderr:
            if words in line:
                return line
        raise AssertionError(f"the server ended without saying {words!r}")

    def wait_ready(self) -> None:
        found = re.search(r"http://\S+", self.read_until("Corral serves"))
        assert found is not None
        self.url = found.group()
        self.worker = psutil.Process(self.process.pid).children()[0]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ask(self, text: str) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=chat_body(text))

    def exit_code(self) -> int:
        return self.process.wait(60)

    def worker_is_gone(self) -> bool:
        psutil.wait_procs([self.worker], timeout=20)
        return not self.worker.is_running()


@contextlib.contextmanager
def running(model: str = "scripted.gguf", **config: Any) -> Iterator[ServerProcess]:
    """Args: fields of ServerConfig."""
    server = ServerProcess(model, config)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.stderr.close()


@contextlib.contextmanager
def held_stream(server: ServerProcess) -> Iterator[Iterator[str]]:
    body = chat_body("hold", stream=True)
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        while "held" not in next(lines):
            continue
        yield lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_once(number: int) -> None:
    with running() as server:
        server.wait_ready()
        assert server.ask("hello").json()["choices"][0]["message"]["content"] == "HELLO"
        server.signal(number)
        assert server.exit_code() == 0
        assert server.worker_is_gone()


def test_streams_in_flight_finish_and_new_requests_are_told() -> None:
    with running() as server:
        server.wait_ready()
        # Both connections are open before the signal; a new one is taken too, while the server drains.
        with held_stream(server) as lines, httpx.Client(base_url=server.url) as other:
            assert other.get("/health").json() == {"status": "ok"}
            server.signal(signal.SIGTERM)
            server.read_until("another Ctrl-C")
            for refused in (other.post("/v1/completions", json={}), server.ask("hello")):
                assert (refused.status_code, error_of(refused)["code"]) == (503, "server_draining")
                assert int(refused.headers["retry-after"]) > 0
            assert other.get("/health").json()["status"] == "draining"
            assert other.get("/v1/models").status_code == 200
            # New requests are refused, the script's own "release" among them; so the stream is ended from inside.
            os.kill(server.worker.pid, signal.SIGUSR1)
            assert "data: [DONE]" in "".join(lines)
        assert server.exit_code() == 0
        assert server.worker_is_gone()


def test_a_second_signal_ends_the_streams() -> None:
    with running() as server:
        server.wait_ready()
        with held_stream(server) as lines:
            server.signal(signal.SIGINT)
            server.read_until("another Ctrl-C")
            server.signal(signal.SIGINT)
            with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                assert "[DONE]" not in "".join(lines)
            assert server.exit_code() == EXIT_DRAIN_CUT
        assert server.worker_is_gone()


def test_requests_are_taken_after_the_signal_until_routers_have_noticed() -> None:
    with running(drain_delay_s=3600.0) as server:
        server.wait_ready()
        server.signal(signal.SIGTERM)
        server.read_until("takes others for 3600 s")
        assert httpx.get(f"{server.url}/health").status_code == 503
        answer = server.ask("hello")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0  # nothing was in flight


def test_whoever_sits_at_the_terminal_need_not_wait() -> None:
    with running(drain_delay_s=3600.0) as server:
        server.wait_ready()
        server.signal(signal.SIGINT)
        assert server.exit_code() == 0


def test_a_signal_while_loading() -> None:
    with running("endless.gguf") as server:
        server.read_until("scripted plan")
        process = psutil.Process(server.process.pid)
        [worker] = process.children()
        while not (ports := [c.laddr.port for c in process.net_connections() if c.status == "LISTEN"]):
            assert server.process.poll() is None
        url = f"http://127.0.0.1:{ports[0]}"
        assert httpx.get(f"{url}/ready").json()["status"] == "loading"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", ports[0], timeout=60)) as waiting:
            headers = {"Content-Type": "application/json"}
            waiting.request("POST", "/v1/chat/completions", json.dumps(chat_body("hello")), headers)
            assert httpx.get(f"{url}/livez").json() == {"status": "ok"}
            server.signal(signal.SIGTERM)
            assert json.load(waiting.getresponse())["error"]["code"] == "server_draining"
        assert server.exit_code() == EXIT_INTERRUPTED
        psutil.wait_procs([worker], timeout=20)
        assert not worker.is_running()


def test_a_model_that_does_not_load_is_an_error_not_a_server() -> None:
    with running("huge.gguf") as server:
        server.read_until("InsufficientMemory: huge does not fit")
        assert server.exit_code() == 1


def test_an_open_host_without_a_key_is_refused_before_the_model_is_touched() -> None:
    with pytest.raises(InvalidConfig, match="--no-auth"):
        serve(Serving(NamedModels([])), EngineConfig(), ServerConfig(host="0.0.0.0", port=0))


def test_a_taken_port_is_refused_before_the_model_is_touched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(InvalidConfig, match="in use"):
        serve(Serving(NamedModels([])), EngineConfig(), ServerConfig(port=other.getsockname()[1]))


def test_the_server_says_what_it_loads() -> None:
    with running() as server:
        assert "scripted plan" in server.read_until("plan")
        server.wait_ready()
        models: Any = json.loads(httpx.get(f"{server.url}/v1/models").content)
        assert models["data"][0]["id"] == "scripted"
