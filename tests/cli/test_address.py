from __future__ import annotations

import socket
import threading

import pytest

from corral.cli.address import NotConnected, ServerAddress, is_corral, parse_address, server_address
from corral.errors import InvalidConfig


@pytest.mark.parametrize(
    ("text", "host", "port", "scheme", "path"),
    [
        ("myserver", "myserver", 11434, "http", ""),
        ("1.2.3.4:80", "1.2.3.4", 80, "http", ""),
        (":8000", "127.0.0.1", 8000, "http", ""),
        ("0.0.0.0", "127.0.0.1", 11434, "http", ""),
        ("[::]:8000", "::1", 8000, "http", ""),
        ("[::1]", "::1", 11434, "http", ""),
        ("::1", "::1", 11434, "http", ""),
        ("http://myserver", "myserver", 80, "http", ""),
        ("https://myserver/", "myserver", 443, "https", ""),
        ("https://myserver:8443/ai/", "myserver", 8443, "https", "/ai"),
        (' "myserver:1" ', "myserver", 1, "http", ""),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, text: str, host: str, port: int, scheme: str, path: str) -> None:
    monkeypatch.delenv("CORRAL_PORT", raising=False)
    assert parse_address(text) == ServerAddress(host, port, scheme, path, is_given=True)


@pytest.mark.parametrize("text", ["ftp://x", "a b", "x:99999", "x:0", "user:pw@x", "http://x:y", "x?y", "http://x/#y"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidConfig, match="CORRAL_HOST"):
        parse_address(text)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CORRAL_HOST", "OLLAMA_HOST", "CORRAL_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert server_address() == ServerAddress("127.0.0.1", 11434)
    monkeypatch.setenv("CORRAL_PORT", "9000")
    monkeypatch.setenv("OLLAMA_HOST", "theirs")
    assert server_address() == ServerAddress("theirs", 9000, is_given=True)
    monkeypatch.setenv("CORRAL_HOST", "ours:1")
    assert str(server_address()) == "http://ours:1"


def test_a_unix_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    address = parse_address("unix:///run/corral.sock")
    assert (address.uds, str(address), address.is_here) == ("/run/corral.sock", "unix:///run/corral.sock", True)
    for name in ("CORRAL_HOST", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CORRAL_UDS", "/run/other.sock")
    assert server_address().uds == "/run/other.sock"
    monkeypatch.setenv("CORRAL_HOST", "ours:1")
    assert server_address().uds == ""


def test_as_text() -> None:
    assert str(ServerAddress("::1", 11434)) == "http://[::1]:11434"
    assert str(ServerAddress("x", 443, "https", "/ai")) == "https://x/ai"


@pytest.mark.parametrize(("host", "is_here"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("x", False)])
def test_which_is_this_machine(host: str, is_here: bool) -> None:
    assert ServerAddress(host, 1).is_here is is_here


@pytest.mark.parametrize(
    ("answer", "is_ours"),
    [
        (b"HTTP/1.1 200 OK\r\nServer: corral\r\n\r\n", True),
        (b"HTTP/1.1 401 Unauthorized\r\nserver: Corral/1.2\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nServer: corralled\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH\r\nServer: corral\r\n", False),
        (b"", False),
    ],
)
def test_who_answers(answer: bytes, is_ours: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        assert is_corral(ServerAddress("127.0.0.1", listener.getsockname()[1])) is is_ours
        thread.join()


def test_nobody_answers() -> None:
    with pytest.raises(NotConnected, match=r"http://127.0.0.1:1; run 'corral serve'"):
        is_corral(ServerAddress("127.0.0.1", 1))
