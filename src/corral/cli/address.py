"""Where a Corral server is asked for, and whether one answers there."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.config import DEFAULT_HOST, DEFAULT_PORT, ca_bundle, client_host, client_port
from corral.errors import CorralError, InvalidConfig

if TYPE_CHECKING:
    import ssl

_PROBE_TIMEOUT_S = 1.0  # a server on this machine answers in a millisecond; a busy one gets its time
_MAX_HEAD_BYTES = 1 << 14
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a server binds to, and where it is reached then
_ADDRESS = re.compile(
    r"(?:(?P<scheme>https?)://)?(?:\[(?P<v6>[0-9a-fA-F:.%]+)\]|(?P<host>[^\s/:\[\]@?#]*))(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/[^\s?#]*)?"
)


class NotConnected(CorralError):
    """Nobody answers at the address, or not as Corral does."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Scheme, host and port of a server; `path` goes in front of every route, `is_given` tells that a user chose it.

    One behind a Unix socket has the scheme "unix", and that socket's path in `uds`.
    """

    host: str
    port: int
    scheme: str = "http"
    path: str = ""
    is_given: bool = False
    uds: str = ""

    def __str__(self) -> str:
        if self.uds:
            return f"unix://{self.uds}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_usual = self.port == (443 if self.scheme == "https" else 80)
        return f"{self.scheme}://{host}{'' if is_usual else f':{self.port}'}{self.path}"

    @property
    def is_here(self) -> bool:
        """It names this machine, without asking a name server."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def server_address() -> ServerAddress:
    """What CORRAL_HOST (OLLAMA_HOST) says, else 127.0.0.1:11434.

    Raises:
        InvalidConfig: it cannot be an address.
    """
    text = client_host()
    return parse_address(text or DEFAULT_HOST, is_given=text is not None)


def parse_address(text: str, *, is_given: bool = True) -> ServerAddress:
    """`host`, `host:port`, `:port`, `[::1]:port` or a URL; a URL's default port is its scheme's. Or unix:///path.

    Raises:
        InvalidConfig: anything else.
    """
    bare = text.strip().strip("\"'")
    if bare.startswith("unix:///"):
        return ServerAddress("localhost", 80, "unix", is_given=is_given, uds=bare.removeprefix("unix://"))
    match = re.fullmatch(r"(?P<v6>[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F.]*)", bare) or _ADDRESS.fullmatch(bare)
    if match is None:
        raise _invalid(text)
    found = match.groupdict()
    scheme = found.get("scheme") or "http"
    usual = {"http": 80, "https": 443}[scheme] if found.get("scheme") else _usual_port()
    port = int(found.get("port") or usual)
    if not 0 < port < 1 << 16:
        raise _invalid(text)
    host = found.get("v6") or found.get("host") or DEFAULT_HOST
    path = (found.get("path") or "").rstrip("/")
    return ServerAddress(_ANYWHERE.get(host, host), port, scheme, path, is_given)


def _usual_port() -> int:
    text = client_port()
    if text is None:
        return DEFAULT_PORT
    return int(text) if text.isdecimal() and 0 < int(text) < 1 << 16 else DEFAULT_PORT  # `serve` refuses it by name


def _invalid(text: str) -> InvalidConfig:
    return InvalidConfig(
        f"the server's address is {text!r}; CORRAL_HOST (or OLLAMA_HOST) must be like 127.0.0.1:11434, myserver, "
        "https://myserver:8443, or unix:///path/of/a/socket"
    )


def is_corral(address: ServerAddress) -> bool:
    """Whether a Corral answers there: it says so in its Server header, which Ollama does not.

    Written on a bare socket: a model in this process waits for this, and nobody listening is known at once.

    Raises:
        NotConnected: nobody answers.
        CorralError: somebody does, with a certificate that cannot be trusted.
    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    request = f"HEAD {address.path}/api/version HTTP/1.1\r\nHost: {host}:{address.port}\r\nConnection: close\r\n\r\n"
    try:
        with _connect(address) as connection:
            connection.sendall(request.encode("idna" if not request.isascii() else "ascii"))
            head = _read_head(connection)
    except (OSError, UnicodeError) as error:
        raise connect_error(address, error) from error
    if not head.startswith(b"HTTP/"):
        return False
    return any(re.match(rb"(?i)server:\s*corral\b", line) for line in head.split(b"\r\n"))


def not_connected(address: ServerAddress) -> NotConnected:
    return NotConnected(f"could not connect to a Corral server at {address}; run 'corral serve' to start it")


def connect_error(address: ServerAddress, error: Exception) -> CorralError:
    """What to say of a connection that did not come about."""
    if reason := getattr(error, "verify_message", ""):
        return CorralError(
            f"the certificate of {address} is not trusted: {reason}; if it is by an authority of your own, "
            "SSL_CERT_FILE names the file of that"
        )
    return not_connected(address)


def connect_unix(path: str, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(address: ServerAddress) -> socket.socket:
    if address.uds:
        return connect_unix(address.uds, _PROBE_TIMEOUT_S)
    connection = socket.create_connection((address.host, address.port), timeout=_PROBE_TIMEOUT_S)
    if address.scheme == "http":
        return connection
    return tls_context().wrap_socket(connection, server_hostname=address.host)


def tls_context() -> ssl.SSLContext:
    """Trusts the system's authorities, or SSL_CERT_FILE's, and those of `ca_bundle` besides."""
    import ssl

    context = ssl.create_default_context()
    if bundle := ca_bundle():
        context.load_verify_locations(bundle)
    return context


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES:
        data = connection.recv(4096)
        if not data:
            break
        head += data
    return head
