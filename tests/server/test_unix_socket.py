"""A server at a path of the file system: who may connect, what is left behind, and who is in the way."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest

from corral.cli.address import parse_address
from corral.cli.native_client import NativeClient
from corral.config import ServerConfig
from corral.errors import InvalidConfig
from corral.server.listen import bind, drain_delay_s, own_unix_path, url_of
from corral.server.unix_socket import bind_unix, owned_path
from tests.support.live_server import chat_body
from tests.support.scripted_serve import scripted_serve


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that is short enough for the kernel."""
    folder = tmp_path_factory.mktemp("s")
    monkeypatch.chdir(folder)
    return str(folder / "corral.sock")


def test_a_server_at_a_path(tmp_path: Path, path: str) -> None:
    with scripted_serve(tmp_path, "--uds", path, port=None) as server:
        server.wait_ready()
        assert server.url == f"unix://{path}"
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://any-name") as client:
            assert client.get("/health").json() == {"status": "ok"}
            answer = client.post("/v1/chat/completions", json={**chat_body("hello"), "model": "scripted"})
            assert answer.json()["choices"][0]["message"]["content"] == "HELLO"
        remote = NativeClient(parse_address(f"unix://{path}"))
        assert remote.call("GET", "/api/tags")["models"][0]["name"].startswith("scripted")
        with pytest.raises(InvalidConfig, match="a server listens there"):
            bind_unix(path, 0o600)
        assert server.end() == 0
        assert not Path(path).exists()


def test_what_a_killed_server_leaves_is_removed(tmp_path: Path, path: str) -> None:
    with scripted_serve(tmp_path, "--uds", path, port=None) as server:
        server.wait_ready()
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(60)
    assert Path(path).exists()
    with scripted_serve(tmp_path, port=None, env={"CORRAL_HOST": f"unix://{path}", "CORRAL_UDS_MODE": "666"}) as again:
        again.wait_ready()
        assert again.url == f"unix://{path}"
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o666


def test_what_else_is_there_stays(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(InvalidConfig, match="is no socket"):
        bind_unix(path, 0o600)
    assert Path(path).read_text() == "precious"
    link = Path(path).with_name("link")
    link.symlink_to(path)
    with pytest.raises(InvalidConfig, match="is no socket"):
        bind_unix(str(link), 0o600)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("/nowhere/at/all.sock", "No such file"), ("/" + "x" * 108, "longer than"), ("a\0b", "cannot listen")],
)
def test_paths_that_cannot_be(wanted: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        bind_unix(wanted, 0o600)


def test_a_path_that_another_server_took_over_is_left_to_it(path: str) -> None:
    with bind_unix(path, 0o600):
        with owned_path(path):
            Path(path).unlink()
            other = bind_unix(path, 0o600)
        assert Path(path).exists()
        other.close()


def test_it_counts_as_loopback(path: str) -> None:
    config = ServerConfig(uds=path, host="0.0.0.0", port=0)  # the host means nothing beside it
    [sock] = bind(config)
    with sock:
        assert (url_of(sock), drain_delay_s(config, [sock]), own_unix_path(config, [sock])) == (
            f"unix://{path}",
            0.0,
            path,
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)  # it waits in the socket until the server is there
