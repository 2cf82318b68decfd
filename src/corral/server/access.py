"""What each route asks of a key's role, decided on the raw path; what has no decision here is closed to all but admins.

tests/server/test_access.py fails, and names the route, where a route has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from starlette.routing import compile_path

from corral.server.caller import Role

_VIEWER, _USER, _ADMIN = Role.VIEWER, Role.USER, Role.ADMIN

# "METHOD path", as the route has it -> the least role.
ROLES: Mapping[str, Role] = {
    **dict.fromkeys(
        (
            *("GET /version", "GET /openapi.json", "GET /v1/models", "GET /v1/models/{name:path}"),
            *("GET /limits", "GET /load", "GET /metrics", "GET /usage"),
            *("GET /api/version", "GET /api/tags", "GET /api/ps", "POST /api/show"),
        ),
        _VIEWER,
    ),
    **dict.fromkeys(
        (
            *("POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings"),
            *("POST /v1/responses", "POST /v1/responses/compact", "GET /v1/responses/{response_id}"),
            *("DELETE /v1/responses/{response_id}", "POST /v1/responses/{response_id}/cancel"),
            *("GET /v1/responses/{response_id}/input_items", "POST /v1/files", "GET /v1/files", "GET /v1/files/{id}"),
            *("DELETE /v1/files/{id}", "GET /v1/files/{id}/content", "POST /v1/batches", "GET /v1/batches"),
            *("GET /v1/batches/{id}", "POST /v1/batches/{id}/cancel"),
            *("POST /v1/messages", "POST /v1/messages/count_tokens"),
            *("POST /v1/score", "POST /score", "POST /v1/rerank", "POST /v2/rerank", "POST /rerank"),
            *("POST /tokenize", "POST /detokenize"),
            *("POST /v1/chat/completions/render", "POST /v1/completions/render"),
            *("POST /api/generate", "POST /api/chat", "POST /api/embed", "POST /api/embeddings"),
        ),
        _USER,
    ),
    **dict.fromkeys(
        (
            *("POST /api/pull", "POST /api/push", "POST /api/create", "POST /api/copy", "DELETE /api/delete"),
            *("HEAD /api/blobs/{digest}", "POST /api/blobs/{digest}"),
            *("GET /admin/keys", "POST /admin/keys", "DELETE /admin/keys/{id}", "POST /admin/keys/{id}/rotate"),
            *("GET /admin/audit", "GET /admin/usage"),
        ),
        _ADMIN,
    ),
}

# What the audit log calls the routes that change models; those of keys enter it with the change itself.
ACTIONS: Mapping[str, str] = {
    "/api/pull": "model.pull",
    "/api/push": "model.push",
    "/api/create": "model.create",
    "/api/copy": "model.copy",
    "/api/delete": "model.delete",
}


def needed_role(method: str, path: str) -> Role | None:
    """The least role that may ask; None for what has no decision.

    A path asked with a method that it has not needs the highest role among those that it has: then the answer is 405.
    """
    method = "GET" if method == "HEAD" and not path.startswith("/api/blobs/") else method
    found: list[tuple[str, Role]] = []
    for decided, pattern, role, _ in _patterns():
        if pattern.match(path):
            if decided == method:
                return role
            found.append((decided, role))
    roles = {role for _, role in found}
    return next((role for role in (_ADMIN, _USER, _VIEWER) if role in roles), None)


def route_of(method: str, path: str) -> str:
    """The route that a path belongs to, with its variable parts by name; "" for what is none."""
    method = "GET" if method == "HEAD" and not path.startswith("/api/blobs/") else method
    if f"{method} {path}" in ROLES or path == "/":
        return path
    return next((route for decided, pattern, _, route in _patterns() if decided == method and pattern.match(path)), "")


@cache
def _patterns() -> list[tuple[str, re.Pattern[str], Role, str]]:
    """The exact ones first, as the router has them."""
    exact_first = sorted(ROLES.items(), key=lambda item: "{" in item[0])
    found = []
    for route, role in exact_first:
        method, _, path = route.partition(" ")
        found.append((method, compile_path(path)[0], role, path))
    return found
