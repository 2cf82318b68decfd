"""The routes that see to the store, on the wire: a real library in a temporary folder."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from corral.server.served_model import RunningModel
from corral.store.library import Library
from corral.store.local_model import LocalModel
from corral.store.manifest import CONFIG, MODEL, Manifest
from corral.store.names import parse_name
from corral.worker.info import ModelInfo, WorkerStats
from tests.support.gguf_writer import write_tiny_gguf
from tests.support.native_api import DIGEST, NativeServer, native_server

BLOB = b"a blob of a model"
BLOB_DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
OTHER_DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "weights.gguf")


@pytest.fixture
def server(tmp_path: Path, gguf: Path) -> Iterator[NativeServer]:
    with native_server(tmp_path / "models", gguf) as running:
        yield running


def test_tags(server: NativeServer, gguf: Path) -> None:
    response = server.call("GET", "/api/tags")
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    models = {model["name"]: model for model in response.json()["models"]}
    assert set(models) == {"tiny:latest", "file:latest"}
    tiny = models["tiny:latest"]
    assert set(tiny) == {"name", "model", "modified_at", "size", "digest", "details", "capabilities"}
    assert (tiny["model"], tiny["capabilities"]) == ("tiny:latest", ["completion"])
    assert tiny["size"] > gguf.stat().st_size
    assert re.fullmatch("[0-9a-f]{64}", tiny["digest"])
    assert datetime.now(UTC) - datetime.fromisoformat(tiny["modified_at"]) < timedelta(minutes=5)
    details = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"]}
    assert tiny["details"] == {
        **details,
        "parameter_size": tiny["details"]["parameter_size"],
        "quantization_level": "Q8_0",
        "context_length": 2048,
        "embedding_length": 256,
    }
    assert models["file:latest"]["size"] == gguf.stat().st_size
    assert re.fullmatch("[0-9a-f]{64}", models["file:latest"]["digest"])
    assert models["file:latest"]["digest"] != tiny["digest"]
    assert server.call("HEAD", "/api/tags").status_code == 200


def test_show(server: NativeServer) -> None:
    shown = server.post("/api/show", {"model": "tiny"}).json()
    assert shown["license"] == "MIT"
    assert shown["modelfile"] == "FROM tiny:latest\n"
    assert shown["parameters"].splitlines() == [
        "temperature                    0.25",
        'stop                           "END"',
        'stop                           "FIN"',
        "num_ctx                        2048",
    ]
    assert (shown["system"], shown["details"]["family"], shown["capabilities"]) == (
        "Be brief.",
        "llama",
        ["completion"],
    )
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["model_info"]["tokenizer.ggml.tokens"] == []
    assert set(shown["tensors"][0]) == {"name", "type", "shape"}
    assert "modified_at" in shown
    verbose = server.post("/api/show", {"name": "tiny", "verbose": True, "system": "Other."}).json()
    assert len(verbose["model_info"]["tokenizer.ggml.tokens"]) > 5
    assert verbose["system"] == "Other."
    assert server.post("/api/show", {"model": "file"}).json()["modelfile"] == "FROM weights.gguf\n"


def test_ps(server: NativeServer) -> None:
    local = server.manager.locals["tiny:latest"]
    info = ModelInfo("tiny", "llama", 8192, 4096, 1000, "none", 1, 123, 0.0)
    expires_at = datetime(2040, 1, 2, 3, 4, 5, 678000, UTC)
    stats = WorkerStats(num_running=2, num_waiting=1)
    server.manager.running_models = [
        RunningModel(local, info, stats, expires_at, "ready", 1000, 600, 300, 400),
        RunningModel(LocalModel("bare", local.path), info, stats, None, "loading", 0, 0, 0, 0),
    ]
    first, second = server.call("GET", "/api/ps").json()["models"]
    details = first.pop("details")
    assert set(details) == {"parent_model", "format", "family", "families", "parameter_size", "quantization_level"}
    assert first == {
        "name": "tiny:latest",
        "model": "tiny:latest",
        "size": 1000,
        "digest": local.digest,
        "size_vram": 0,
        "expires_at": "2040-01-02T03:04:05.678Z",
        "context_length": 4096,
        "state": "ready",
        "weights_bytes": 600,
        "kv_used_bytes": 300,
        "kv_limit_bytes": 400,
        "num_running": 2,
        "num_waiting": 1,
    }
    assert (second["name"], second["expires_at"], second["state"]) == ("bare:latest", "9999-12-31T23:59:59Z", "loading")


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
def test_transfers(server: NativeServer, path: str) -> None:
    lines = server.lines(path, {"model": "m", "insecure": True})
    assert lines == [
        {"status": "pulling manifest"},
        {"status": "pulling abababababab", "digest": DIGEST, "total": 100, "completed": 100},
        {"status": "success"},
    ]
    assert server.post(path, {"name": "m", "stream": False}).json() == {"status": "success"}
    assert server.store.calls == [(path[5:], "m", True), (path[5:], "m", False)]


def test_a_pull_that_fails_after_its_first_word_ends_with_a_line(server: NativeServer) -> None:
    error = {"error": "pull model manifest: file does not exist"}
    assert server.lines("/api/pull", {"model": "broken"}) == [{"status": "pulling manifest"}, error]
    response = server.post("/api/pull", {"model": "broken", "stream": False})
    assert (response.status_code, response.json()) == (500, error)


def test_a_pull_that_fails_before_its_first_word_has_a_status(server: NativeServer) -> None:
    response = server.post("/api/pull", {"model": "refused"})
    assert (response.status_code, response.json()) == (500, {"error": "it cannot be done"})


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_pull(server: NativeServer, stream: bool) -> None:
    address = urlsplit(server.url)
    body = json.dumps({"model": "endless", "stream": stream}).encode()
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as sock:
        sock.sendall(
            f"POST /api/pull HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        if stream:
            assert sock.recv(1 << 16)
    assert server.store.abandoned.wait(60)


def test_create(server: NativeServer) -> None:
    body = {
        "model": "mine",
        "from": "tiny",
        "system": "Hi.",
        "template": "{{ .Prompt }}",
        "license": "MIT",
        "parameters": {"temperature": 1},
        "messages": [{"role": "user", "content": "x"}],
        "quantize": "q4_K_M",
        "adapters": {"lora.gguf": BLOB_DIGEST},
        "files": {"a/model.gguf": BLOB_DIGEST.replace(":", "-")},
    }
    assert server.lines("/api/create", body)[-1] == {"status": "success"}
    [(_, name, spec)] = server.store.calls
    assert (name, spec.from_, spec.system, spec.template, spec.licenses) == (
        "mine",
        "tiny",
        "Hi.",
        "{{ .Prompt }}",
        ("MIT",),
    )
    assert (spec.parameters, spec.messages) == ({"temperature": 1.0}, ({"role": "user", "content": "x"},))
    assert (spec.files, spec.adapters) == ({"a/model.gguf": BLOB_DIGEST}, {"lora.gguf": BLOB_DIGEST})
    assert (spec.quantize, spec.renderer) == ("q4_K_M", None)
    assert server.post("/api/create", {**body, "stream": False}).json() == {"status": "success"}


def test_copy_and_delete(server: NativeServer) -> None:
    response = server.post("/api/copy", {"source": "Tiny", "destination": "me/other:v1"})
    assert (response.status_code, response.content) == (200, b"")
    assert server.store.find("me/other:v1") is not None
    response = server.call("DELETE", "/api/delete", {"model": "me/other:v1"})
    assert (response.status_code, response.content) == (200, b"")
    assert server.store.find("me/other:v1") is None
    assert server.manager.unloaded == []  # the server does not serve it
    assert server.call("DELETE", "/api/delete", {"name": "tiny"}).status_code == 200
    assert server.manager.unloaded == ["tiny:latest"]


def test_a_model_of_ollamas_own_folder_is_not_deleted(server: NativeServer, tmp_path: Path, gguf: Path) -> None:
    theirs = Library(tmp_path / "ollama")
    config = theirs.add_bytes(b"{}", CONFIG)
    theirs.write(parse_name("theirs"), Manifest(config, (theirs.link_file(gguf, MODEL, lambda _: None),)))
    server.store.library.others = (tmp_path / "ollama",)
    response = server.call("DELETE", "/api/delete", {"model": "theirs"})
    assert response.status_code == 400
    assert "ollama rm" in response.json()["error"]


def test_blobs(server: NativeServer) -> None:
    path = f"/api/blobs/{BLOB_DIGEST}"
    assert server.call("HEAD", path).status_code == 404
    assert httpx.post(server.url + path, content=BLOB).status_code == 201
    assert server.call("HEAD", path).status_code == 200
    assert httpx.post(server.url + path, content=BLOB).status_code == 200
    response = httpx.post(f"{server.url}/api/blobs/{OTHER_DIGEST}", content=BLOB)
    text = f'digest mismatch, expected "{OTHER_DIGEST}", got "{BLOB_DIGEST}"'
    assert (response.status_code, response.json()) == (400, {"error": text})
    assert server.call("HEAD", f"/api/blobs/{OTHER_DIGEST}").status_code == 404


def test_a_blob_that_comes_too_slowly_is_given_up(tmp_path: Path, gguf: Path) -> None:
    with native_server(tmp_path, gguf, body_timeout_s=0.05) as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as sock:
            head = f"POST /api/blobs/{OTHER_DIGEST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
            sock.sendall(head.encode() + b"abc")
            assert b"408" in sock.recv(1 << 16).split(b"\r\n")[0]
        assert not list(server.store.root.rglob("*partial*"))


def test_blobs_may_be_larger_than_bodies(tmp_path: Path, gguf: Path) -> None:
    with native_server(tmp_path / "small", gguf, max_body_bytes=1000) as server:
        content = b"x" * 100_000
        digest = hashlib.sha256(content).hexdigest()
        assert httpx.post(f"{server.url}/api/blobs/sha256:{digest}", content=content).status_code == 201
        response = server.post("/api/chat", {"model": "tiny", "messages": [], "x": "y" * 2000})
        told = f"the body has {len(response.request.content)} bytes; at most 1000 bytes are allowed"
        assert (response.status_code, response.json()) == (413, {"error": told})


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/api/show", {}, 400, "model is required"),
    ("POST", "/api/show", {"model": "nope"}, 404, "model 'nope' not found"),
    ("POST", "/api/pull", {}, 400, "invalid model name"),
    ("POST", "/api/push", {}, 400, "model is required"),
    ("POST", "/api/create", {}, 400, "invalid model name"),
    ("POST", "/api/create", {"model": "m"}, 400, "neither 'from' or 'files' was specified"),
    ("POST", "/api/create", {"model": "m", "files": {"/etc/x": BLOB_DIGEST}}, 400, "file path must be relative"),
    ("POST", "/api/create", {"model": "m", "files": {"a/../../x": BLOB_DIGEST}}, 400, "file path must be relative"),
    ("POST", "/api/create", {"model": "m", "files": {"x": "/etc/passwd"}}, 400, "invalid digest format: '/etc/passwd'"),
    (
        "POST",
        "/api/create",
        {"model": "m", "from": "t", "remote_host": "h"},
        400,
        "this server cannot run this remote model",
    ),
    (
        *("POST", "/api/create", {"model": "m", "from": "t", "adapters": {"a": BLOB_DIGEST, "b": BLOB_DIGEST}}, 400),
        "only one adapter is currently supported",
    ),
    (
        "POST",
        "/api/create",
        {"model": "m", "from": "t", "license": 5},
        400,
        "license must be a string or a list of strings",
    ),
    (
        *("POST", "/api/create", {"model": "m", "from": "t", "parameters": {"num_ctx": "x"}}, 400),
        'option "num_ctx" must be of type integer',
    ),
    ("POST", "/api/copy", {}, 400, 'source "" is invalid'),
    ("POST", "/api/copy", {"source": "tiny", "destination": "a b"}, 400, 'destination "a b" is invalid'),
    ("POST", "/api/copy", {"source": "nope", "destination": "m"}, 404, 'model "nope" not found'),
    ("DELETE", "/api/delete", {}, 400, 'name "" is invalid'),
    ("DELETE", "/api/delete", {"model": "nope"}, 404, "model 'nope' not found"),
    ("DELETE", "/api/delete", None, 400, "missing request body"),
    ("POST", "/api/blobs/sha256:12", None, 400, "invalid digest format"),
    ("POST", "/api/embed", {"model": "nope", "input": "a"}, 404, 'model "nope" not found, try pulling it first'),
    ("POST", "/api/embed", {"input": "a"}, 404, 'model "" not found, try pulling it first'),
    ("POST", "/api/embed", {"model": "tiny", "input": 5}, 400, "invalid input type"),
    ("POST", "/api/embed", {"model": "tiny", "input": ["a", 5]}, 400, "invalid input type"),
    ("POST", "/api/embed", {"model": "tiny", "dimensions": -1}, 400, "dimensions is -1; it must not be below 0"),
    (
        *("POST", "/api/embed", {"model": "tiny", "input": "too long", "truncate": False}, 400),
        "the input length exceeds the context length",
    ),
    ("POST", "/api/embeddings", {"model": "nope", "prompt": "a"}, 404, 'model "nope" not found, try pulling it first'),
    (
        "POST",
        "/api/embeddings",
        {"model": "tiny", "prompt": "too long"},
        400,
        "the input length exceeds the context length",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "text"), REFUSED)
def test_refusals(server: NativeServer, method: str, path: str, body: Any, status: int, text: str) -> None:
    response = server.call(method, path, body)
    assert (response.status_code, response.json()) == (status, {"error": text})


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "~/x.gguf", "x.gguf"])
def test_no_client_names_the_servers_files(server: NativeServer, name: str) -> None:
    for path, body in (
        ("/api/pull", {"model": name}),
        ("/api/push", {"model": name}),
        ("/api/create", {"model": name, "from": "tiny"}),
        ("/api/create", {"model": "m", "from": name}),
    ):
        response = server.post(path, body)
        assert response.status_code == 400
        assert response.json()["error"].startswith("invalid model name")
    assert server.store.calls == []


def test_embed(server: NativeServer) -> None:
    one = server.post("/api/embed", {"model": "tiny", "input": "a", "keep_alive": 5}).json()
    assert one.pop("total_duration") > 0
    assert one == {
        "model": "tiny",
        "embeddings": [[1, 0, 0, 0]],
        "load_duration": 1_500_000_000,
        "prompt_eval_count": 2,
    }
    two = server.post("/api/embed", {"model": "tiny", "input": ["a", "b"], "dimensions": 2}).json()
    assert two["embeddings"] == [[1, 0], [1, 0]]
    assert server.manager.leases == [("tiny:latest", 5.0, 2048), ("tiny:latest", None, 2048)]
    empty: list[dict[str, Any]] = [{}, {"input": ""}, {"input": []}]
    for nothing in empty:
        assert server.post("/api/embed", {"model": "tiny", **nothing}).json()["embeddings"] == []
    assert server.post("/api/embeddings", {"model": "tiny", "prompt": "a"}).json() == {"embedding": [1, 0, 0, 0]}
    assert server.post("/api/embeddings", {"model": "tiny"}).json() == {"embedding": []}
    assert [request.truncate for request in server.manager.embeds] == [True, True, False]


def test_embed_within_the_context_that_is_asked_for(server: NativeServer) -> None:
    for options in ({"num_ctx": 3}, {}):
        server.post("/api/embed", {"model": "tiny", "input": "a", "options": options})
    first, second = server.manager.embeds
    assert first.max_context == 3
    assert second.max_context == 2048, "the Modelfile's counts"
