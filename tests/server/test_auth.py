from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from starlette.routing import Route

from corral.config import ServerConfig
from corral.server.app import build_app
from corral.server.auth import PUBLIC_PATHS
from corral.server.lifecycle import PROBE_PATHS
from corral.server.model_manager import ModelManager
from corral.server.model_names import NamedModels
from tests.support.live_server import LiveServer, chat_body, error_of, live_server

KEYS = ("first-key", "second-key")


@pytest.fixture(scope="module")
def guarded() -> Iterator[LiveServer]:
    with live_server(api_keys=KEYS) as running:
        yield running


def all_routes() -> list[tuple[str, str]]:
    """(method, path) of every route."""
    routes = build_app(ModelManager(NamedModels([])), ServerConfig()).routes
    assert all(isinstance(route, Route) for route in routes), "a mounted app needs a walk of its own"
    return sorted(
        (method, route.path) for route in routes if isinstance(route, Route) for method in route.methods or ()
    )


def test_the_walk_finds_the_routes() -> None:
    found = all_routes()
    assert ("POST", "/v1/chat/completions") in found
    assert ("GET", "/v1/models/{name:path}") in found
    assert ("GET", "/health") in found
    assert ("DELETE", "/api/delete") in found


@pytest.mark.parametrize(("method", "path"), all_routes())
def test_every_route_but_probes_wants_a_key(guarded: LiveServer, method: str, path: str) -> None:
    response = httpx.request(method, guarded.url + path.replace("{name:path}", "scripted"))
    if path in PUBLIC_PATHS:
        assert path == "/" or path in PROBE_PATHS
        assert response.status_code == 200
    else:
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        if method != "HEAD":
            payload = response.json()
            if path.startswith("/v1/messages"):
                assert payload["error"]["type"] == "authentication_error"
            else:
                assert set(payload) == {"error"}
                assert not path.startswith("/v1") or error_of(response)["code"] == "invalid_api_key"


@pytest.mark.parametrize("key", KEYS)
def test_each_key_opens(guarded: LiveServer, key: str) -> None:
    with openai.OpenAI(base_url=guarded.base_url, api_key=key, max_retries=0) as client:
        assert client.models.list().data[0].id == "scripted"
    lower = httpx.get(f"{guarded.base_url}/models", headers={"Authorization": f"bearer {key}"})
    assert lower.status_code == 200
    assert httpx.get(f"{guarded.base_url}/models", headers={"X-Api-Key": key}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer wrong")],
        [("Authorization", "Bearer")],
        [("Authorization", "first-key")],
        [("Authorization", "Basic first-key")],
        [("Authorization", "Bearer first-key-and-more")],
        [("Authorization", "Bearer first-ke")],
        [("Authorization", "Bearer first-key"), ("Authorization", "Bearer first-key")],
        [("X-Api-Key", "wrong")],
        [("X-Api-Key", "first-key"), ("X-Api-Key", "second-key")],
        [("X-Api-Key", "first-key"), ("Authorization", "Bearer second-key")],
        [("X-Api-Key", "first-key"), ("Authorization", "Basic first-key")],
        [("Authorization", "Bearer \xff\xfe")],
        [("Host", "x/health?"), ("Authorization", "Bearer wrong")],
        [("Host", "/health")],
        [("X-Forwarded-Prefix", "/health"), ("X-Original-URL", "/health")],
    ],
)
def test_everything_else_does_not(guarded: LiveServer, headers: list[tuple[str, str]]) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    response = httpx.post(f"{guarded.base_url}/chat/completions", json=chat_body(), headers=encoded)
    assert response.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/health/",
        "/health/../v1/models",
        "/health%2f..%2fv1/models",
        "//health",
        "/HEALTH",
        "/v1/models?/health",
        "/none",
    ],
)
def test_paths_like_health_are_not_health(guarded: LiveServer, path: str) -> None:
    transport = httpx.HTTPTransport()
    request = httpx.Request("GET", guarded.url)
    request.url = request.url.copy_with(raw_path=path.encode())
    with httpx.Client(transport=transport) as client:
        assert client.send(request).status_code == 401


def test_without_keys_all_may_come(server: LiveServer) -> None:
    assert httpx.get(f"{server.base_url}/models").status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "corral.localhost:80", "127.0.0.1:5", "10.1.2.3", "[::1]:8"]
)
def test_without_keys_our_own_names_are_served(server: LiveServer, host: str) -> None:
    assert httpx.get(f"{server.base_url}/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:11434", "localhost.evil.example", "127.0.0.1.evil", ""])
def test_without_keys_other_names_are_not(server: LiveServer, host: str) -> None:
    response = httpx.post(f"{server.base_url}/chat/completions", json=chat_body(), headers={"Host": host})
    assert (response.status_code, error_of(response)["code"]) == (403, "foreign_host")


def test_with_a_key_any_name_is_served(guarded: LiveServer) -> None:
    headers = {"Host": "corral.example.com", "Authorization": f"Bearer {KEYS[0]}"}
    assert httpx.get(f"{guarded.base_url}/models", headers=headers).status_code == 200
