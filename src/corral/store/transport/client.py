"""The HTTP client of the store: certificates, proxies, credentials, time-outs."""

from __future__ import annotations

import functools
import netrc
import ssl
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Queue
from typing import TypeVar

import certifi
import httpx

from corral.config import ca_bundle
from corral.errors import DownloadError, InvalidConfig
from corral.store.transport.guard import Guard

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """When a server's silence or a broken connection counts as failure.

    Args:
        connect_s: for a connection to one address.
        answer_s: for the answer to a small question, name look-up included.
        stall_s: between two pieces of a body.
        retries: tries in a row that may gain nothing once bytes have flowed; before the first byte, one.
        backoff_s: wait before the second try; doubles from there.
    """

    connect_s: float = 3.0
    answer_s: float = 6.0
    stall_s: float = 20.0
    retries: int = 5
    backoff_s: float = 0.5

    def tries(self, has_gained: bool, retry_after_s: float) -> int:
        """Failures in a row to bear: few before the first byte, unless the server says when to come back."""
        return self.retries if has_gained or retry_after_s else 1


@dataclass(frozen=True, slots=True)
class Transport:
    """How to reach hosts, beyond what the environment says; the words are pip's."""

    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    trusted_hosts: tuple[str, ...] = ()


def open_client(
    patience: Patience, transport: Transport | None = None, guard: Guard | None = None, *, verify: bool = True
) -> httpx.Client:
    """A client that follows redirects; httpx drops credentials when one leads to another host.

    Args:
        guard: looks at every request, those that a redirect leads to above all.
        verify: False takes any certificate, where the user has said so.

    Raises:
        InvalidConfig: a certificate file that cannot be read, a proxy address that is none.
    """
    transport = transport or Transport()
    try:
        context = _tls_context(transport.cert or ca_bundle(), transport.client_cert)
        mounts = {f"https://{host}": _trusting_transport(host, transport.proxy) for host in transport.trusted_hosts}
        return httpx.Client(
            verify=context if verify else False,
            event_hooks={"request": [guard.check] if guard else []},
            proxy=transport.proxy,
            mounts=mounts,
            follow_redirects=True,
            timeout=httpx.Timeout(patience.stall_s, connect=patience.connect_s),
            headers={"User-Agent": "corral", "Accept-Encoding": "identity"},
        )
    except (OSError, ValueError, httpx.InvalidURL) as error:  # ssl.SSLError is an OSError
        raise InvalidConfig(f"cannot set up downloads: {error} (certificates: {_cert_files(transport)})") from error


def _cert_files(transport: Transport) -> str:
    return ", ".join(str(f) for f in (transport.cert or ca_bundle(), transport.client_cert) if f) or "the system's"


@functools.cache
def _tls_context(bundle: str | None, client_cert: str | None) -> ssl.SSLContext:
    """Trusts the system's authorities (a company's own are there), certifi's, and the ones in `bundle`."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if bundle:
        context.load_verify_locations(bundle)
    if client_cert:
        context.load_cert_chain(client_cert)
    return context


def _trusting_transport(host: str, proxy: str | None) -> httpx.HTTPTransport:
    """For a host whose certificate the user said not to check. A mount hides the environment's proxy: ask for it."""
    if proxy is None and not urllib.request.proxy_bypass(host):
        proxy = urllib.request.getproxies().get("https")
    return httpx.HTTPTransport(verify=False, proxy=proxy)


def credentials(url: httpx.URL, known: dict[str, tuple[str, str]] | None = None) -> httpx.BasicAuth | None:
    """User and password for `url`: its own, those `known` for its host, or those of ~/.netrc."""
    if url.username:
        return httpx.BasicAuth(url.username, url.password)
    if known and url.host in known:
        return httpx.BasicAuth(*known[url.host])
    try:
        entry = netrc.netrc().authenticators(url.host)
    except (OSError, netrc.NetrcParseError):
        return None
    return httpx.BasicAuth(entry[0], entry[2] or "") if entry else None


def shown(url: httpx.URL | str) -> str:
    """`url` fit for a message: without user, password, query and fragment, which may hold secrets."""
    return str(httpx.URL(url).copy_with(username=None, password=None, query=None, fragment=None))


def printable(text: str) -> str:
    """What a server says, fit for a message: short, and without what steers a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text[:300])


def describe(error: httpx.HTTPError, url: httpx.URL | str) -> str:
    """What went wrong with `url`, in words."""
    host = httpx.URL(url).netloc.decode().rpartition("@")[2]
    if isinstance(error, httpx.TimeoutException):
        return f"{host} did not answer in time"
    if isinstance(error, httpx.ConnectError):
        return f"cannot connect to {host}: {error}"
    return f"the connection to {host} broke: {error or type(error).__name__}"


def within(seconds: float, what: str, ask: Callable[[], T]) -> T:
    """`ask()`, or DownloadError after `seconds`.

    A name look-up knows no time-out and a host's addresses are tried one after the other, each with its own,
    so the whole question gets a deadline; the thread is left behind to end with its socket.
    """
    answers: Queue[T | BaseException] = Queue()

    def run() -> None:
        try:
            answers.put(ask())
        except BaseException as error:  # noqa: BLE001 - handed over to the caller, who raises it
            answers.put(error)

    threading.Thread(target=run, name="corral-store-question", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise DownloadError(f"{what} did not answer within {seconds:g} s") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer
