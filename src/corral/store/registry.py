"""A registry that speaks the protocol of Ollama's: Docker's version 2, with models for images.

Signing in: a 401 names a realm on the same host, which gives a token to whoever asks, or to the user and password that
the address or ~/.netrc has for that host. Ollama's own accounts want requests signed by a key; Corral signs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from corral.config import registry_mirror
from corral.errors import DownloadError, InvalidConfig
from corral.store.manifest import MANIFEST_TYPE
from corral.store.names import DEFAULT_HOST, ModelName
from corral.store.transport.client import Patience, credentials, open_client, printable, shown
from corral.store.transport.guard import Guard
from corral.store.transport.questions import Reply, ask
from corral.store.transport.transfer import AccessRefused

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_MAX_TOKEN_BYTES = 1 << 20


@dataclass(slots=True)
class Registry:
    """A connection to the registry of one model; `base` is its address up to /v2."""

    client: httpx.Client
    base: httpx.URL
    name: ModelName
    patience: Patience
    authorization: str = ""

    @property
    def host(self) -> str:
        return self.base.netloc.decode().rpartition("@")[2]

    def url(self, *path: str) -> httpx.URL:
        """.../v2/<namespace>/<model>/<path>."""
        text = "/".join((self.base.path.rstrip("/"), "v2", self.name.namespace, self.name.model, *path))
        return self.base.copy_with(raw_path=text.encode(), username=None, password=None)

    def headers(self, url: httpx.URL | None = None) -> dict[str, str]:
        """Credentials, for our own host only."""
        is_ours = url is None or (url.scheme, url.netloc) == (self.base.scheme, self.url("").netloc)
        return {"Authorization": self.authorization} if self.authorization and is_ours else {}

    def ask(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        max_bytes: int = 8 << 20,
    ) -> Reply:
        """The answer; where the registry wants to know who asks, it is told once and asked again.

        Raises:
            AccessRefused: it does not take what we have.
        """
        for is_last in (False, True):
            sent = {**(headers or {}), **self.headers(url)}
            reply = ask(
                self.client, url, self.patience, method=method, headers=sent, content=content, max_bytes=max_bytes
            )
            if reply.status != 401 or is_last:
                break
            self.sign_in(reply.headers.get("WWW-Authenticate", ""))
        if reply.status in (401, 403, 407):
            raise self._refusal(reply)
        return reply

    def sign_in(self, challenge: str) -> None:
        """Get what the registry wants to see.

        Raises:
            DownloadError: a realm elsewhere, or no token from it.
        """
        kind, _, rest = challenge.partition(" ")
        known = credentials(self.base)
        if kind.lower() == "basic" and known is not None:
            request = next(known.auth_flow(httpx.Request("GET", self.base)))
            self.authorization = request.headers["Authorization"]
            return
        parameters = dict(_PARAMETER.findall(rest))
        if kind.lower() != "bearer" or "realm" not in parameters:
            return  # the 401 itself is the answer
        realm = self._realm(parameters.pop("realm"))
        wanted = {key: parameters[key] for key in ("service", "scope") if key in parameters}
        reply = ask(self.client, realm.copy_merge_params(wanted), self.patience, auth=known, max_bytes=_MAX_TOKEN_BYTES)
        if reply.status in (401, 403):
            raise self._refusal(reply)
        if not reply.is_success:
            raise DownloadError(f"{shown(realm)} answered {reply.status} {reply.reason} when asked for a token")
        answer = reply.json()
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise DownloadError(f"{shown(realm)} sent no token")
        self.authorization = f"Bearer {token}"

    def _realm(self, text: str) -> httpx.URL:
        try:
            realm = self.base.join(text)
        except httpx.InvalidURL as error:
            raise DownloadError(f"{self.host} names {text[:200]!r} to sign in at, which is no address") from error
        if realm.netloc.decode() != self.host:
            raise DownloadError(
                f"{self.host} wants us to sign in at {realm.netloc.decode()!r}; only its own host is trusted with that"
            )
        return realm

    def _refusal(self, reply: Reply) -> AccessRefused:
        return AccessRefused(
            f"{self.host} refuses {self.name}: {reply.status} {reply.reason}{told(reply)}. Is the name right? User and "
            f"password of a private registry belong in ~/.netrc (machine {self.base.host}); requests signed with "
            "Ollama's key, as its own registry wants them for private models and for every push, are not supported"
        )


def told(reply: Reply) -> str:
    """What a registry says about its refusal, as ": words"; "" if nothing."""
    try:
        answer = reply.json()
        message = answer["errors"][0]["message"] if "errors" in answer else answer["error"]
    except (DownloadError, KeyError, IndexError, TypeError):
        return ""
    return f": {printable(str(message))}"


@contextmanager
def open_registry(name: ModelName, patience: Patience, *, insecure: bool) -> Iterator[Registry]:
    """The registry that `name` is of, or CORRAL_REGISTRY for those of Ollama's.

    HTTPS, but for addresses that say http://. `insecure` takes any certificate, and plain HTTP where there is no HTTPS.

    Raises:
        DownloadError: it does not answer.
    """
    base = _base(name)
    plain = base.scheme == "http"
    guard = Guard(base, may_be_plain=insecure or plain)
    with open_client(patience, guard=guard, verify=not insecure) as client:
        registry = Registry(client, base, name, patience)
        if insecure and not plain and not _speaks_https(registry):
            registry.base = guard.start = base.copy_with(scheme="http")
        yield registry


def _base(name: ModelName) -> httpx.URL:
    mirror = registry_mirror()
    is_mirrored = mirror is not None and name.host.lower() == DEFAULT_HOST
    text = mirror if mirror is not None and is_mirrored else f"{'http' if name.is_insecure else 'https'}://{name.host}"
    try:
        base = httpx.URL(text if "://" in text else f"https://{text}")
    except httpx.InvalidURL as error:
        raise InvalidConfig(f"{'CORRAL_REGISTRY' if is_mirrored else name.host} is no address: {error}") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise InvalidConfig(f"CORRAL_REGISTRY is {text!r}; it must be an address such as https://mirror.example/ollama")
    return base


def _speaks_https(registry: Registry) -> bool:
    try:
        registry.client.get(registry.base.copy_with(raw_path=b"/v2/"), follow_redirects=False)
    except httpx.TransportError:
        return False
    return True


MANIFEST_HEADERS = {"Accept": MANIFEST_TYPE}
