"""Writes into the audit log what clients do to models: pull, push, create, copy, delete, load and unload by hand."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from corral.errors import CorralError
from corral.server.access import ACTIONS
from corral.server.exchange import Exchange, exchange_of
from corral.server.keys.audit import DONE, Actor, AuditLog, Entry

logger = logging.getLogger("corral.server")

_NOBODY = "without a key"
_UNAUTHORIZED = 401  # of whoever has no key there is nothing to tell, and there may be many


class AuditTrail:
    """Middleware outside of KeyAuth, so that it sees what that refuses too."""

    def __init__(self, app: ASGIApp, log: AuditLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        if scope["method"] in ("POST", "DELETE"):
            exchange.management = ACTIONS.get(scope["path"], "")
        try:
            await self._app(scope, receive, send)
        finally:
            if exchange.management and exchange.status != _UNAUTHORIZED:
                await self._add(actor_of(scope), exchange)

    async def _add(self, actor: Actor, exchange: Exchange) -> None:
        outcome = exchange.cause or (DONE if 200 <= exchange.status < 300 else f"{exchange.status or 'gone'}")
        entry = Entry(actor, exchange.management, exchange.model, outcome)
        try:
            # The client may be gone, and this task cancelled with it: the entry is written all the same.
            await asyncio.shield(asyncio.to_thread(self._log.add, entry))
        except CorralError:
            logger.error("the audit log has no entry of %s by %s: %s", entry.action, actor.name, outcome)


def actor_of(scope: Scope) -> Actor:
    """Who makes the request, and from where."""
    caller = exchange_of(scope).caller
    client = scope.get("client")
    return Actor(caller.name or _NOBODY, caller.key_id, client[0] if client else "")
