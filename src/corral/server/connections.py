"""How many connections are open, in all and of one address."""

from __future__ import annotations

import ipaddress
import resource
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING

from corral.config import ServerConfig
from corral.protocol.openai.errors import too_many_connections
from corral.server.auth import PUBLIC_PATHS
from corral.server.replies import send_reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# Beyond the limits so many more get their refusal in words (and probes their answer); beyond these they are closed.
NUM_REFUSALS = 128
_OTHER_FILES = 256  # model files, workers, the database, what is uploaded
_V6_NETWORK_BYTES = 8  # a machine has 2^64 addresses of its own


class Verdict(Enum):
    """What becomes of a new connection."""

    OPEN = auto()
    FULL = auto()  # too many in all
    CROWDED = auto()  # too many of its address
    CLOSED = auto()  # not even a refusal


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a connection may cost.

    Args:
        max_connections: open ones, in all.
        max_connections_per_address: open ones of one address; an IPv6 network of 64 bits is one.
        head_timeout_s: for the head of a request, also the first one of a fresh connection.
        write_timeout_s: how long a client may take nothing of what it is sent.
    """

    max_connections: int
    max_connections_per_address: int
    head_timeout_s: float
    write_timeout_s: float

    @classmethod
    def of(cls, config: ServerConfig) -> HttpLimits:
        """What the settings say, as far as the system lets us open files."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = config.max_connections if soft == resource.RLIM_INFINITY else max(soft - NUM_REFUSALS - _OTHER_FILES, 1)
        max_connections = min(config.max_connections, room)
        return cls(max_connections, config.max_connections_per_address, config.head_timeout_s, config.write_timeout_s)


class Connections:
    """Counts the connections of one server."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.num_open = 0
        self._by_address: Counter[bytes | str] = Counter()

    def enter(self, address: str | None) -> Verdict:
        """Counts one in; a Unix socket's has no address."""
        limits, key = self.limits, _key_of(address)
        self.num_open += 1
        self._by_address[key] += 1
        of_address = self._by_address[key] if address is not None else 0
        if self.num_open > limits.max_connections + NUM_REFUSALS:
            return Verdict.CLOSED
        if of_address > limits.max_connections_per_address + NUM_REFUSALS:
            return Verdict.CLOSED
        if of_address > limits.max_connections_per_address:
            return Verdict.CROWDED
        return Verdict.FULL if self.num_open > limits.max_connections else Verdict.OPEN

    def leave(self, address: str | None) -> None:
        key = _key_of(address)
        self.num_open -= 1
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]


class TooManyConnections:
    """The app of a connection that is one too many: probes are answered, everything else is refused, and it closes."""

    def __init__(self, app: ASGIApp, verdict: Verdict) -> None:
        self._app = app
        self._verdict = verdict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PUBLIC_PATHS:
            await self._app(scope, receive, send)
        else:
            await send_reply(scope, send, too_many_connections(of_address=self._verdict is Verdict.CROWDED))


@lru_cache(maxsize=4096)
def _key_of(address: str | None) -> bytes | str:
    if address is None or ":" not in address:
        return address or ""
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else parsed.packed[:_V6_NETWORK_BYTES]


def allow_open_files(config: ServerConfig) -> None:
    """Raises this process's limit of open files to what the connections may come to, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = config.max_connections + NUM_REFUSALS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
