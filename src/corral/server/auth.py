"""Who may ask: API keys and their roles, deny by default; without keys, only those who call us by our own name."""

from __future__ import annotations

import ipaddress
import re

from starlette.types import ASGIApp, Receive, Scope, Send

from corral.errors import CorralError
from corral.protocol.openai.errors import ErrorReply, forbidden, foreign_host, not_found, reply_to, unauthorized
from corral.server.access import needed_role
from corral.server.caller import Caller, Role
from corral.server.exchange import exchange_of
from corral.server.keys.ring import KeyRing
from corral.server.lifecycle import PROBE_PATHS
from corral.server.replies import send_reply

_HOST_PORT = re.compile(r":\d*$")
# They tell that a server is here, and whether it wants work; nothing else.
PUBLIC_PATHS = frozenset({"/", *PROBE_PATHS})


class KeyAuth:
    """Lets a request through when its key works and its role may ask for the route; without keys, lets all through.

    A key comes as a Bearer token, or as Anthropic's clients send it: in X-Api-Key.

    The path is the parser's own (`scope["path"]`), never rebuilt from headers, which are the client's to write.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._keys.is_open:
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} connections are not served")
        elif scope["path"] in PUBLIC_PATHS:
            await self._app(scope, receive, send)
        elif isinstance(caller := self._check(scope), ErrorReply):
            await send_reply(scope, send, caller)
        else:
            exchange_of(scope).caller = caller
            if (refusal := _refusal(scope, caller)) is not None:
                await send_reply(scope, send, refusal)
            else:
                await self._app({**scope, "corral.caller": caller}, receive, send)

    def _check(self, scope: Scope) -> Caller | ErrorReply:
        """Whose the key is, or why there is no way in."""
        bearers = [value for name, value in scope["headers"] if name == b"authorization" and value.strip()]
        keys = [value.strip() for name, value in scope["headers"] if name == b"x-api-key" and value.strip()]
        if not bearers and not keys:
            try:
                self._keys.check_known()
            except CorralError as error:
                return reply_to(error)
            return unauthorized("no API key was given; send the header 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'")
        if bearers:
            scheme, _, token = bearers[0].partition(b" ")
            if len(bearers) > 1 or scheme.lower() != b"bearer":
                return unauthorized("the Authorization header must be 'Bearer KEY', once")
            keys.append(token.strip())
        if any(key != keys[0] for key in keys):
            return unauthorized("different API keys were given in Authorization and X-Api-Key; send one")
        try:
            return self._keys.find(keys[0])
        except CorralError as error:
            return reply_to(error)


def _refusal(scope: Scope, caller: Caller) -> ErrorReply | None:
    """Why the caller's role may not ask for this; what has no decision is as if absent to all but admins."""
    if caller.role.includes(Role.ADMIN):
        return None
    needed = needed_role(scope["method"], scope["path"])
    if needed is None:
        return not_found(scope["path"])
    if caller.role.includes(needed):
        return None
    return forbidden(f"the API key's role is {caller.role}; {scope['method']} {scope['path'][:200]} needs {needed}")


class HostGuard:
    """Refuses requests whose Host is a name other than ours: for servers without keys, on loopback.

    A web page can point its own name at 127.0.0.1 (DNS rebinding) and then talk to us as to its own server; but the
    browser still sends the page's name.
    """

    def __init__(self, app: ASGIApp, host: str, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys
        self._own_name = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_needed = scope["type"] == "http" and self._keys.is_open
        if not is_needed or all(self._is_ours(v) for k, v in scope["headers"] if k == b"host"):
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
