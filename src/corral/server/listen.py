"""Where the server listens, and whether it may."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from corral.config import ServerConfig
from corral.errors import InvalidConfig
from corral.server.dead_peers import find_dead_peers
from corral.server.service_manager import passed_sockets
from corral.server.unix_socket import bind_unix

EXPOSED_DRAIN_DELAY_S = 2.0  # a router asks once a second or so

Address = tuple[socket.AddressFamily, str]  # family and numeric address


def resolve_host(host: str) -> list[Address]:
    """The addresses that `host` means: a name, an IPv4 or an IPv6 address (with or without brackets).

    Raises:
        InvalidConfig: it means none.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidConfig(f"host {host!r} cannot be resolved: {error}; give an address such as 127.0.0.1") from None
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found if bare))


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def check_exposure(config: ServerConfig, addresses: list[Address]) -> None:
    """Refuses to serve other machines without a key, unless the user says so.

    Raises:
        InvalidConfig: says what to do; also for keys that no header can carry.
        StorageError: whether there are stored keys cannot be read.
    """
    for key in config.api_keys:
        if not key or key != key.strip() or not key.isascii() or not key.isprintable():
            raise InvalidConfig("an API key must be printable ASCII without spaces at its ends, and not empty")
    beyond = [address for _, address in addresses if not is_loopback(address)]
    if beyond and not config.api_keys and not config.no_auth and not have_keys(config.database_url):
        raise InvalidConfig(
            f"host {config.host} is reachable from other machines ({beyond[0]}), and no API key is set; give --api-key "
            "(or CORRAL_API_KEY), make a key with `corral keys create NAME`, or give --no-auth if everyone who can "
            "reach it may use it, or listen on 127.0.0.1"
        )


def have_keys(database_url: str | None) -> bool:
    """Whether keys are stored; revoked ones count: they keep a server closed.

    Raises:
        InvalidConfig: the URL is no database's.
        StorageError: it cannot be read.
    """
    from corral.server.database import Database
    from corral.server.keys.store import KeyStore

    with Database(database_url).for_now() as database:
        return database.is_there and bool(KeyStore(database).all())


def addresses_of(sockets: list[socket.socket]) -> list[Address]:
    """Those of sockets that other machines might reach: a Unix socket has none."""
    return [(sock.family, sock.getsockname()[0]) for sock in sockets if sock.family != socket.AF_UNIX]


def bind(config: ServerConfig) -> list[socket.socket]:
    """Sockets bound to the host's addresses, or to the Unix socket's path, or passed by a service manager.

    Those of addresses do not listen yet: until then clients are refused, not kept waiting.

    Raises:
        InvalidConfig: exposed without a key, or the port or the path cannot be had.
    """
    if passed := passed_sockets():
        check_exposure(config, addresses_of(passed))
        return passed
    if config.uds is not None:
        check_exposure(config, [])
        return [bind_unix(config.uds, config.uds_mode)]
    addresses = resolve_host(config.host)
    check_exposure(config, addresses)
    if not addresses:
        raise InvalidConfig("host is empty; give an address such as 127.0.0.1")
    sockets: list[socket.socket] = []
    port = config.port
    try:
        for family, address in addresses:
            sockets.append(_bind_one(family, address, port))
            find_dead_peers(sockets[-1], config.write_timeout_s)
            port = sockets[0].getsockname()[1]  # with port 0, all addresses share the first one's
    except (OSError, OverflowError) as error:
        for sock in sockets:
            sock.close()
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            reason += ": stop the server that runs there (Ollama, or another Corral), or give another --port"
        raise InvalidConfig(f"cannot listen on {config.host} port {config.port}: {reason}") from None
    return sockets


def _bind_one(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" means every address, IPv4 too; a name with both kinds binds each by itself.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def own_unix_path(config: ServerConfig, sockets: list[socket.socket]) -> str | None:
    """The path of the Unix socket that we have made."""
    return config.uds if any(sock.getsockname() == config.uds for sock in sockets) else None


def drain_delay_s(config: ServerConfig, sockets: list[socket.socket]) -> float:
    """How long requests are taken after SIGTERM: as set, else only where other machines may send them."""
    if config.drain_delay_s is not None:
        return config.drain_delay_s
    is_exposed = any(not is_loopback(address) for _, address in addresses_of(sockets))
    return EXPOSED_DRAIN_DELAY_S if is_exposed else 0.0


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """The URL under which this machine reaches the socket; unix:// and its path for a Unix socket."""
    if sock.family == socket.AF_UNIX:
        return f"unix://{sock.getsockname()}"
    address, port = sock.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"
