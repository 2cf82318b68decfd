from __future__ import annotations

import socket

import pytest

from corral.config import ServerConfig
from corral.errors import InvalidConfig
from corral.server.listen import bind, check_exposure, is_loopback, resolve_host, url_of


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "10.1.2.3", "fd00::1", "0"])
def test_beyond_loopback_a_key_is_needed(host: str) -> None:
    addresses = resolve_host(host)
    with pytest.raises(InvalidConfig, match=r"--api-key.*--no-auth.*127\.0\.0\.1"):
        check_exposure(ServerConfig(host=host), addresses)
    check_exposure(ServerConfig(host=host, api_keys=("k",)), addresses)
    check_exposure(ServerConfig(host=host, no_auth=True), addresses)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_loopback_needs_none(host: str) -> None:
    check_exposure(ServerConfig(host=host), resolve_host(host))


@pytest.mark.parametrize("key", ["", " ", "a b ", "ключ", "a\nb"])
def test_keys_that_no_header_carries(key: str) -> None:
    with pytest.raises(InvalidConfig, match="API key"):
        check_exposure(ServerConfig(api_keys=("good", key)), resolve_host("127.0.0.1"))


@pytest.mark.parametrize("host", ["", "256.1.1.1.1", "no such host", "a" * 300, "\ud800"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(InvalidConfig, match="host"):
        bind(ServerConfig(host=host, port=0))


@pytest.mark.parametrize("port", [-1, 70_000, 1 << 40])
def test_ports_that_are_none(port: int) -> None:
    with pytest.raises(InvalidConfig, match="cannot listen"):
        bind(ServerConfig(port=port))


def test_a_taken_port_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InvalidConfig, match=r"in use: stop .* or give another --port"):
            bind(ServerConfig(port=other.getsockname()[1]))


def test_every_address_of_a_name_gets_the_same_port() -> None:
    sockets = bind(ServerConfig(host="localhost", port=0))
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert all(is_loopback(sock.getsockname()[0]) for sock in sockets)
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
def test_urls(host: str, shown: str) -> None:
    [sock] = bind(ServerConfig(host=host, port=0, no_auth=True))
    with sock:
        assert url_of(sock) == f"{shown}{sock.getsockname()[1]}"
