"""What stands before Ollama's routes: probes, keys, hosts, origins, unknown paths and methods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import corral
from corral.errors import InvalidConfig
from corral.server.origins import origin_pattern
from tests.support.gguf_writer import write_tiny_gguf
from tests.support.native_api import NativeServer, native_server


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("door") / "tiny.gguf")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> Iterator[NativeServer]:
    with native_server(
        tmp_path_factory.mktemp("open"), gguf, origins=("https://ui.example.com", "https://*.lan")
    ) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> Iterator[NativeServer]:
    with native_server(tmp_path_factory.mktemp("locked"), gguf, api_keys=("secret",)) as running:
        yield running


def test_probes(server: NativeServer) -> None:
    response = server.call("GET", "/")
    assert (response.status_code, response.text) == (200, "Ollama is running")
    assert response.headers["server"] == "corral"
    response = server.call("HEAD", "/")
    assert (response.status_code, response.text) == (200, "")
    version = server.call("GET", "/api/version").json()
    assert version == {"version": "0.13.0", "corral": corral.__version__}
    assert all(part.isdecimal() for part in version["version"].split("."))
    assert server.call("HEAD", "/api/version").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/api", 404, "404 page not found"),
        ("GET", "/api/nothing", 404, "404 page not found"),
        ("POST", "/api/chat/", 404, "404 page not found"),
        ("POST", "/api/me", 404, "404 page not found"),
        ("GET", "/api/chat", 405, "405 method not allowed"),
        ("GET", "/api/delete", 405, "405 method not allowed"),
        ("POST", "/api/tags", 405, "405 method not allowed"),
        ("GET", "/api/blobs/sha256:1", 405, "405 method not allowed"),
        ("POST", "/", 405, "405 method not allowed"),
    ],
)
def test_unknown_paths_and_methods(server: NativeServer, method: str, path: str, status: int, text: str) -> None:
    response = server.call(method, path)
    assert (response.status_code, response.text) == (status, text)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert status != 405 or response.headers["allow"]


def test_keys_open_it_and_probes_need_none(locked: NativeServer) -> None:
    response = locked.call("GET", "/api/tags")
    assert (response.status_code, set(response.json())) == (401, {"error"})
    assert "Bearer" in response.headers["www-authenticate"]
    assert locked.call("GET", "/api/tags", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert locked.call("GET", "/").text == "Ollama is running"
    assert locked.call("GET", "/api/version").status_code == 401


def test_foreign_hosts_are_refused(server: NativeServer) -> None:
    response = server.call("GET", "/api/tags", headers={"Host": "evil.example.com"})
    assert (response.status_code, set(response.json())) == (403, {"error"})


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost", True),
        ("http://LOCALHOST:3000", True),
        ("https://127.0.0.1:8443", True),
        ("app://obsidian.md", True),
        ("vscode-webview://1a2b", True),
        ("https://ui.example.com", True),
        ("https://chat.lan", True),
        ("https://evil.example.com", False),
        ("http://localhost.evil.example.com", False),
        ("https://ui.example.com.evil.org", False),
        ("http://ui.example.com", False),
        ("null", False),
        ("", False),
    ],
)
def test_web_pages_of_other_origins_are_refused(server: NativeServer, origin: str, is_allowed: bool) -> None:
    body = {"model": "tiny"}
    for path in ("/api/chat", "/v1/models"):
        method = "POST" if path == "/api/chat" else "GET"
        response = server.call(method, path, body if method == "POST" else None, headers={"Origin": origin})
        assert response.status_code == (200 if is_allowed else 403)
        assert response.headers.get("access-control-allow-origin") == (origin if is_allowed else None)
    preflight = server.call(
        *("OPTIONS", "/api/chat"),
        headers={"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-any"},
    )
    assert preflight.status_code == (200 if is_allowed else 403)


def test_a_page_of_ours_may_call(server: NativeServer) -> None:
    assert server.call("GET", "/api/tags", headers={"Origin": server.url}).status_code == 200


def test_a_preflight_needs_no_key(locked: NativeServer) -> None:
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    assert locked.call("OPTIONS", "/api/chat", headers=headers).status_code == 200
    response = locked.call("GET", "/api/tags", headers={"Origin": "http://localhost:3000"})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


@pytest.mark.parametrize("origin", ["example.com", "", "https://a b", "https://a.example.com/path"])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(InvalidConfig, match="is no origin"):
        origin_pattern([origin])
