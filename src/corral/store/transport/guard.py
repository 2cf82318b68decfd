"""Where a server may send us: a public one never into the private network, an encrypted one never to plain HTTP.

Otherwise whoever can have a model pulled could make this machine ask its neighbours, or itself, in his place.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field

import httpx

from corral.errors import DownloadError


@dataclass(slots=True)
class Guard:
    """Looks at every request of a client before it is sent; `start` is the address that the user named.

    Raises (check):
        DownloadError: a redirect, or a sign-in address, that leads where the user did not point.
    """

    start: httpx.URL
    may_be_plain: bool = False
    _verdicts: dict[str, bool] = field(default_factory=dict)

    def check(self, request: httpx.Request) -> None:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise DownloadError(f"{self.start.host} leads to {url.scheme}://; only http and https are followed")
        if self.start.scheme == "https" and url.scheme == "http" and not self.may_be_plain:
            raise DownloadError(f"{self.start.host} leads to http://{url.host}, which is not encrypted; refused")
        if url.host == self.start.host or self._is_private(self.start.host):
            return
        if self._is_private(url.host):
            raise DownloadError(
                f"{self.start.host} leads to {url.host}, an address of a private network that you have not named"
            )

    def _is_private(self, host: str) -> bool:
        if host not in self._verdicts:
            self._verdicts[host] = is_private(host)
        return self._verdicts[host]


def is_private(host: str) -> bool:
    """Whether any address of `host` is one that the public network does not lead to.

    A name that cannot be looked up here is for the proxy to look up: it is not counted as private.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(_is_inner(str(entry[4][0])) for entry in found)


def _is_inner(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global
