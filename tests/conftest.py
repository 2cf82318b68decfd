"""What every test gets: a home of its own, and no way to the network unless it is marked e2e."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def corral_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Corral's folders are temporary ones, in this process and in those it starts; so is no setting of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [
            n for n in os.environ if n.startswith("CORRAL_") and n not in ("CORRAL_TEST_MODELS", "CORRAL_ISA")
        ]:
            patch.delenv(name)
        patch.setenv("CORRAL_HOME", str(tmp_path_factory.mktemp("corral-home")))
        patch.setenv("CORRAL_CACHE", str(tmp_path_factory.mktemp("corral-cache")))
        yield


@pytest.fixture(autouse=True)
def loopback_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is not marked e2e fails when it reaches for another machine."""
    if request.node.get_closest_marker("e2e") is not None:
        return
    connect = socket.socket.connect

    def checked_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            pytest.fail(f"a test without the e2e mark connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked_connect)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
