"""systemd's protocols: sockets that it passes, and what it is told. The service manager is the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from corral.config import num_passed_sockets, watchdog_s
from corral.server.service_manager import notify
from tests.support.scripted_serve import ScriptedServe, scripted_serve


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, socket.socket]]:
    """Where a service manager listens."""
    path = str(tmp_path_factory.mktemp("n") / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(60)
        yield path, sock


def until(sock: socket.socket, word: str) -> list[str]:
    """Everything that is told until `word` comes, without signs of life."""
    told: list[str] = []
    while word not in told:
        told += sock.recv(4096).decode().splitlines()
    return [line for line in told if line != "WATCHDOG=1"]


def test_a_service_manager_is_told_what_the_server_does(tmp_path: Path, manager: tuple[str, socket.socket]) -> None:
    path, sock = manager
    with scripted_serve(tmp_path, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}) as server:
        ready = until(sock, "READY=1") + sock.recv(4096).decode().splitlines()
        assert "READY=1" in ready
        until(sock, "WATCHDOG=1")
        server.wait_ready()
        server.hang_up()
        told = until(sock, "READY=1")
        assert told[0] == "RELOADING=1"
        assert told[1].startswith("MONOTONIC_USEC=")
        server.process.send_signal(signal.SIGTERM)
        until(sock, "STOPPING=1")
        assert server.process.wait(60) == 0


def test_its_address_may_be_abstract(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"corral-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1", "STATUS=x")
        assert sock.recv(100) == b"READY=1\nSTATUS=x"
    notify("READY=1")  # nobody hears it any more, and that is no fault of ours


@contextlib.contextmanager
def activated(folder: Path, *listeners: socket.socket, **of_process: str) -> Iterator[ScriptedServe]:
    """A server that is passed these sockets as a .socket unit would."""
    numbers = [sock.fileno() for sock in listeners]
    high = [f"{100 + i}<&{number}" for i, number in enumerate(numbers)]
    moves = [f"{3 + i}<&{100 + i} {100 + i}<&-" for i in range(len(numbers))]
    script = f"exec {' '.join([*high])}; exec {' '.join(moves)}; export LISTEN_PID=$$ LISTEN_FDS={len(numbers)}; "
    prefix = ["bash", "-c", script + 'exec "$@"', "bash"]
    with scripted_serve(folder, prefix=prefix, pass_fds=numbers, env=of_process, port=None) as server:
        server.wait_ready()
        yield server


def test_sockets_that_are_passed_are_served(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("s") / "sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(path)
        unix.listen()
        with activated(tmp_path, tcp, unix) as server:
            port = tcp.getsockname()[1]
            assert server.url == f"http://127.0.0.1:{port},"
            assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
            with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
                assert client.get("http://localhost/health").status_code == 200
            assert server.end() == 0
        assert Path(path).exists()  # it is the service manager's


@pytest.mark.parametrize(
    ("host", "kind", "words"),
    [
        ("0.0.0.0", socket.SOCK_STREAM, "reachable from other machines"),
        ("127.0.0.1", socket.SOCK_DGRAM, "no socket to listen on"),
    ],
)
def test_a_passed_socket_is_checked_as_one_of_our_own(tmp_path: Path, host: str, kind: int, words: str) -> None:
    with socket.socket(socket.AF_INET, kind) as passed:
        passed.bind((host, 0))
        with pytest.raises(AssertionError, match=words), activated(tmp_path, passed):
            raise NotImplementedError


def test_what_is_meant_for_another_process_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert num_passed_sockets() == 0
    assert "LISTEN_FDS" not in os.environ
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert (num_passed_sockets(), num_passed_sockets()) == (2, 0)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_s() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_s() is None
    for nonsense in ("", "0", "-1", "soon"):
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        monkeypatch.setenv("WATCHDOG_USEC", nonsense)
        assert watchdog_s() is None
