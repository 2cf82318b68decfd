"""/admin: keys, and what was managed. Admins only, see server/access.py."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.errors import InvalidRequest
from corral.protocol.admin import parse_key, parse_rotate
from corral.server.audit_trail import actor_of
from corral.server.caller import Quotas, Role
from corral.server.keys.audit import AuditLog
from corral.server.keys.expiry import parse_expiry, parse_span
from corral.server.keys.key import QUOTA_NAMES, NewKey
from corral.server.keys.ring import KeyRing
from corral.server.keys.store import KeyStore
from corral.server.limits import read_json
from corral.server.routes.json_answer import json_response
from corral.server.routes.pages import missing

DEFAULT_ENTRIES, MAX_ENTRIES = 100, 1000
_MAX_NUMBER = 2**31 - 1  # of entries, as both databases count them


def admin_routes(store: KeyStore, keys: KeyRing, audit: AuditLog) -> list[Route]:
    async def list_keys(_: HTTPRequest) -> Response:
        found = await asyncio.to_thread(store.all)
        return json_response({"object": "list", "data": [key.public() for key in found]})

    async def create_key(http: HTTPRequest) -> Response:
        new = _new_key(await read_json(http))
        key, secret = await asyncio.to_thread(store.create, new, actor_of(http.scope))
        await keys.refresh()
        return json_response({**key.public(), "key": secret}, _UNCACHED)

    async def revoke_key(http: HTTPRequest) -> Response:
        which = http.path_params["id"]
        key = await asyncio.to_thread(store.revoke, which, actor_of(http.scope))
        if key is None:
            raise missing("key", which)
        await keys.refresh()
        return json_response(key.public())

    async def rotate_key(http: HTTPRequest) -> Response:
        which = http.path_params["id"]
        fields = parse_rotate(await read_json(http) if await http.body() else {})
        grace_s = 0.0 if fields.grace is None else parse_span(fields.grace, "grace")
        rotated = await asyncio.to_thread(store.rotate, which, actor_of(http.scope), grace_s)
        if rotated is None:
            raise missing("key", which)
        await keys.refresh()
        key, secret = rotated
        return json_response({**key.public(), "key": secret}, _UNCACHED)

    async def list_entries(http: HTTPRequest) -> Response:
        limit = _number(http, "limit", MAX_ENTRIES) or DEFAULT_ENTRIES
        before = _number(http, "before", _MAX_NUMBER)
        entries = await asyncio.to_thread(lambda: audit.page(limit=limit + 1, before=before))
        return json_response({"object": "list", "data": entries[:limit], "has_more": len(entries) > limit})

    return [
        Route("/admin/keys", list_keys),
        Route("/admin/keys", create_key, methods=["POST"]),
        Route("/admin/keys/{id}", revoke_key, methods=["DELETE"]),
        Route("/admin/keys/{id}/rotate", rotate_key, methods=["POST"]),
        Route("/admin/audit", list_entries),
    ]


_UNCACHED = {"Cache-Control": "no-store"}  # the answer holds a secret


def _new_key(body: dict[str, object]) -> NewKey:
    fields = parse_key(body)
    return NewKey(
        name=fields.name,
        role=Role(fields.role),
        expires_at=None if fields.expires is None else parse_expiry(fields.expires, time.time()),
        models=None if fields.models is None else tuple(fields.models),
        quotas=Quotas(**{name: getattr(fields, name) for name in QUOTA_NAMES}),
        priority=fields.priority,
        cache_scope=fields.cache_scope,
    )


def _number(http: HTTPRequest, name: str, most: int) -> int | None:
    """Raises InvalidRequest."""
    text = http.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 11 and 1 <= int(text) <= most):
        raise InvalidRequest(f"{name} must be a whole number from 1 to {most}", param=name, code="invalid_value")
    return int(text)
