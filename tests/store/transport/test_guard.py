from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from corral.errors import DownloadError
from corral.store.transport.guard import Guard

ADDRESSES = {
    "public.example": "93.184.216.34",
    "cdn.example": "93.184.216.35",
    "inner.example": "10.1.2.3",
    "metadata.example": "169.254.169.254",
    "mapped.example": "::ffff:127.0.0.1",
    "shared.example": "100.64.0.1",
    "nas.example": "192.168.1.5",
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, *_args: Any, **_options: Any) -> list[tuple[Any, ...]]:
        address = ADDRESSES.get(host, host)
        if not address.replace(".", "").replace(":", "").isalnum() or address.endswith("example"):
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def check(start: str, url: str, *, may_be_plain: bool = False) -> None:
    Guard(httpx.URL(start), may_be_plain).check(httpx.Request("GET", url))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "[::1]", "10.0.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0", "[fd00::1]"),
        *("inner.example", "metadata.example", "mapped.example", "shared.example"),
    ],
)
def test_a_public_server_may_not_send_us_into_the_private_network(host: str) -> None:
    with pytest.raises(DownloadError, match="a private network that you have not named"):
        check("https://public.example/v2", f"https://{host}/secret")


def test_public_servers_may_send_us_to_one_another() -> None:
    check("https://public.example/v2", "https://cdn.example/file")


def test_a_name_that_only_the_proxy_knows_is_left_to_it() -> None:
    check("https://public.example/v2", "https://unknown.example/file")


def test_who_names_a_private_address_means_its_neighbours_too() -> None:
    check("http://nas.example/v2", "http://inner.example/file")
    check("http://127.0.0.1:5000/v2", "http://localhost/file")


def test_an_encrypted_server_may_not_send_us_to_plain_http() -> None:
    with pytest.raises(DownloadError, match="not encrypted"):
        check("https://public.example/v2", "http://cdn.example/file")
    check("https://public.example/v2", "http://cdn.example/file", may_be_plain=True)


def test_a_client_with_a_guard_follows_no_redirect_inside() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "http://169.254.169.254/latest"})

    guard = Guard(httpx.URL("http://public.example"))
    client = httpx.Client(
        transport=httpx.MockTransport(answer), follow_redirects=True, event_hooks={"request": [guard.check]}
    )
    with client, pytest.raises(DownloadError, match=r"169.254.169.254"):
        client.get("http://public.example/file")
