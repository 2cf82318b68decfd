"""Every route has a role that it needs, and no path gets round it."""

from __future__ import annotations

import pytest
from starlette.routing import Route

from corral.config import ServerConfig
from corral.server.access import ROLES, needed_role
from corral.server.app import build_app
from corral.server.auth import PUBLIC_PATHS
from corral.server.caller import Role
from corral.server.model_manager import ModelManager
from corral.server.model_names import NamedModels


def routes() -> list[tuple[str, str]]:
    found = build_app(ModelManager(NamedModels([])), ServerConfig()).routes
    assert all(isinstance(route, Route) for route in found), "a mounted app needs a walk of its own"
    return sorted(
        (method, route.path)
        for route in found
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" or "GET" not in (route.methods or ())
    )


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_has_a_decision(method: str, path: str) -> None:
    assert path in PUBLIC_PATHS or f"{method} {path}" in ROLES, (
        f"say in corral/server/access.py which role {method} {path} needs"
    )


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/v1/models", Role.VIEWER),
        ("HEAD", "/v1/models", Role.VIEWER),
        ("GET", "/v1/models/hf.co/a/b:c", Role.VIEWER),
        ("POST", "/v1/chat/completions", Role.USER),
        ("GET", "/v1/chat/completions", Role.USER),  # 405 for a user
        ("POST", "/v1/models", Role.VIEWER),
        ("GET", "/v1/responses/resp_1", Role.USER),
        ("POST", "/api/pull", Role.ADMIN),
        ("GET", "/api/pull", Role.ADMIN),
        ("HEAD", "/api/blobs/sha256:0", Role.ADMIN),
        ("DELETE", "/admin/keys/x", Role.ADMIN),
        ("PUT", "/admin/keys", Role.ADMIN),
        ("GET", "/api/tags/", None),
        ("POST", "/API/PULL", None),
        ("POST", "//api/pull", None),
        ("GET", "/v1/responses/a/b", None),
        ("GET", "/none", None),
    ],
)
def test_the_role_follows_from_method_and_path(method: str, path: str, role: Role | None) -> None:
    assert needed_role(method, path) == role


def test_roles_are_ordered() -> None:
    assert [[have.includes(need) for need in Role] for have in Role] == [
        [True, True, True],
        [False, True, True],
        [False, False, True],
    ]
