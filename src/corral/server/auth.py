"""API keys: deny by default, one public route."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from corral.protocol.openai_errors import ErrorReply, unauthorized
from corral.server.replies import send_reply

PUBLIC_PATHS = frozenset({"/health"})


class KeyAuth:
    """Lets a request through when it carries one of `keys` as a Bearer token; without keys, lets all through.

    The path is the parser's own (`scope["path"]`), never rebuilt from headers, which are the client's to write.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._digests:
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} connections are not served")
        elif scope["path"] in PUBLIC_PATHS or (refusal := self._check(scope)) is None:
            await self._app(scope, receive, send)
        else:
            await send_reply(send, refusal)

    def _check(self, scope: Scope) -> ErrorReply | None:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if not values:
            return unauthorized("no API key was given; send the header 'Authorization: Bearer KEY'")
        scheme, _, token = values[0].partition(b" ")
        if len(values) > 1 or scheme.lower() != b"bearer":
            return unauthorized("the Authorization header must be 'Bearer KEY', once")
        given = _digest(token.strip())
        # Every key is compared, in constant time: the time taken tells nothing about which one is near.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return None if any(matches) else unauthorized("the API key is not valid")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
