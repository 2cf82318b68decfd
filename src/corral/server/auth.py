"""Who may ask: API keys, deny by default, two public routes; without keys, only those who call us by our own name."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from corral.protocol.openai.errors import ErrorReply, foreign_host, unauthorized
from corral.server.caller import caller_of_digest, digest_of
from corral.server.exchange import exchange_of
from corral.server.replies import send_reply

_HOST_PORT = re.compile(r":\d*$")
PUBLIC_PATHS = frozenset({"/", "/health"})  # they tell that a server is here, and nothing else


class KeyAuth:
    """Lets a request through when it carries one of `keys`; without keys, lets all through.

    A key comes as a Bearer token, or as Anthropic's clients send it: in X-Api-Key.

    The path is the parser's own (`scope["path"]`), never rebuilt from headers, which are the client's to write.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self._app = app
        self._digests = [digest_of(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._digests:
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} connections are not served")
        elif scope["path"] in PUBLIC_PATHS:
            await self._app(scope, receive, send)
        elif isinstance(digest := self._check(scope), bytes):
            caller = caller_of_digest(digest)
            exchange_of(scope).caller = caller
            await self._app({**scope, "corral.caller": caller}, receive, send)
        else:
            await send_reply(scope, send, digest)

    def _check(self, scope: Scope) -> bytes | ErrorReply:
        """The digest of the key, or why there is no way in."""
        bearers = [value for name, value in scope["headers"] if name == b"authorization" and value.strip()]
        keys = [value.strip() for name, value in scope["headers"] if name == b"x-api-key" and value.strip()]
        if not bearers and not keys:
            return unauthorized("no API key was given; send the header 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'")
        if bearers:
            scheme, _, token = bearers[0].partition(b" ")
            if len(bearers) > 1 or scheme.lower() != b"bearer":
                return unauthorized("the Authorization header must be 'Bearer KEY', once")
            keys.append(token.strip())
        if any(key != keys[0] for key in keys):
            return unauthorized("different API keys were given in Authorization and X-Api-Key; send one")
        given = digest_of(keys[0])
        # Every key is compared, in constant time: the time taken tells nothing about which one is near.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return given if any(matches) else unauthorized("the API key is not valid")


class HostGuard:
    """Refuses requests whose Host is a name other than ours: for servers without keys, on loopback.

    A web page can point its own name at 127.0.0.1 (DNS rebinding) and then talk to us as to its own server; but the
    browser still sends the page's name.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._own_name = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or all(self._is_ours(v) for k, v in scope["headers"] if k == b"host"):
            await self._app(scope, receive, send)
        else:
            await send_reply(scope, send, foreign_host())

    def _is_ours(self, header: bytes) -> bool:
        name = _HOST_PORT.sub("", header.decode("latin-1")).strip("[]").lower()
        if name in ("localhost", self._own_name) or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
