"""A server that speaks Ollama's native API over real sockets, with canned models; it notes what it is asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHAT_ROUTES = {"/api/chat", "/api/generate"}


class NativeServer(ThreadingHTTPServer):
    """`models` are there, `to_pull` can be pulled; `blobs` are digests that were sent."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, server_header: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_header = server_header
        self.models = {"smollm2:latest": ["completion"], "minilm:latest": ["embedding"]}
        self.to_pull = {"qwen:latest": ["completion"]}
        self.loaded = {"smollm2:latest"}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.is_locked = False
        self.client_left = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def bodies(self, route: str) -> list[dict[str, Any]]:
        return [body for _method, path, body in self.requests if path == route]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: NativeServer

    def version_string(self) -> str:
        return self.server.server_header

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class calls it
        pass

    def do_HEAD(self) -> None:
        digest = self.path.rpartition("/")[2]
        is_blob = self.path.startswith("/api/blobs/")
        self._empty(404 if is_blob and digest not in self.server.blobs else 200)

    def do_GET(self) -> None:
        self.server.requests.append(("GET", self.path, {}))
        match self.path:
            case "/api/tags":
                self._json({"models": [self._listed(name) for name in self.server.models]})
            case "/api/ps":
                self._json({"models": [self._loaded(name) for name in sorted(self.server.loaded)]})
            case _:
                self._json({"error": "404 page not found"}, 404)

    def do_DELETE(self) -> None:
        body = self._body()
        name = self._name(body)
        if name in self.server.models:
            del self.server.models[name]
            self._empty(200)
        else:
            self._missing(body)

    def do_POST(self) -> None:
        if self.path.startswith("/api/blobs/"):
            self._blob()
            return
        body = self._body()
        if self.server.is_locked:
            self._json({"error": {"message": "no key, no answer"}}, 401)
            return
        name = self._name(body)
        match self.path:
            case "/api/show" if name in self.server.models:
                self._json(self._shown(name))
            case "/api/pull" | "/api/push" | "/api/create":
                self._transfer(body, name)
            case "/api/copy" if f"{body['source']}:latest" in self.server.models:
                self.server.models[f"{body['destination']}:latest"] = ["completion"]
                self._empty(200)
            case "/api/embed" if name in self.server.models:
                self._json({"model": name, "embeddings": [[0.6, -0.8]] if body["input"] else []})
            case "/api/generate" if name in self.server.loaded:
                self.server.loaded.discard(name)
                self._json({"model": name, "response": "", "done": True, "done_reason": "unload"})
            case "/api/chat" if name in self.server.models:
                self._chat(body)
            case "/api/show" | "/api/copy" | "/api/embed" | "/api/generate" | "/api/chat":
                self._missing(body)
            case "/v1/chat/completions":
                self._json({"error": {"message": "model is required"}}, 400)
            case _:
                self._json({"error": "404 page not found"}, 404)

    def _body(self) -> dict[str, Any]:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(data) if data else {}
        self.server.requests.append((self.command, self.path, body))
        self.server.headers_seen.append(dict(self.headers))
        return body

    def _name(self, body: dict[str, Any]) -> str:
        name = str(body.get("model", ""))
        return name if ":" in name else f"{name}:latest"

    def _listed(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "model": name,
            "modified_at": "2026-01-02T03:04:05.123456789Z",
            "size": 98_362_432,
            "digest": "0123456789abcdef" * 4,
            "details": {"family": "llama"},
        }

    def _loaded(self, name: str) -> dict[str, Any]:
        return self._listed(name) | {
            "expires_at": "9999-12-31T23:59:59Z",
            "size_vram": 0,
            "context_length": 8192,
            "state": "ready",
            "weights_bytes": 90_000_000,
            "kv_used_bytes": 1_500_000,
            "kv_limit_bytes": 2_000_000_000,
            "num_running": 1,
            "num_waiting": 3,
        }

    def _shown(self, name: str) -> dict[str, Any]:
        return {
            "license": "Apache",
            "modelfile": f"FROM {name}\n",
            "details": {"family": "llama", "parameter_size": "134.52M", "quantization_level": "Q4_1"},
            "model_info": {"general.architecture": "llama", "llama.context_length": 8192},
            "capabilities": self.server.models[name],
        }

    def _transfer(self, body: dict[str, Any], name: str) -> None:
        if self.path == "/api/pull" and name not in {**self.server.models, **self.server.to_pull}:
            self._lines([{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}])
            return
        if self.path != "/api/push":
            self.server.models[name] = self.server.to_pull.get(name, ["completion"])
        digest = "sha256:" + "ab" * 32
        self._lines(
            [
                {"status": "pulling manifest"},
                {"status": "pulling abababababab", "digest": digest, "total": 2000, "completed": 500},
                {"status": "pulling abababababab", "digest": digest, "total": 2000, "completed": 2000},
                {"status": "success"},
            ]
        )

    def _chat(self, body: dict[str, Any]) -> None:
        if not body["messages"]:
            self._lines([{"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "load"}])
            return
        question = body["messages"][-1]["content"]
        if question == "forever":
            self._forever()
            return
        pieces = [{"message": {"content": "", "thinking": "let me see"}}] if question == "think" else []
        pieces += [{"message": {"content": piece}} for piece in (question.upper(), "!")]
        last = {
            "message": {"content": ""},
            "done": True,
            "done_reason": "length",
            "total_duration": 3_500_000_000,
            "load_duration": 1_000_000_000,
            "prompt_eval_count": 110,
            "prompt_cached_count": 10,
            "prompt_eval_duration": 500_000_000,
            "eval_count": 20,
            "eval_duration": 2_000_000_000,
        }
        if question == "break off":
            self._lines(pieces)
        elif question == "fail":
            self._lines([*pieces, {"error": "the engine has died"}])
        else:
            self._lines([*pieces, last])

    def _forever(self) -> None:
        self._start(200)
        try:
            while True:
                self._chunk(json.dumps({"message": {"content": "on "}}).encode() + b"\n")
        except OSError:
            self.server.client_left.set()
            self.close_connection = True

    def _blob(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rpartition("/")[2]
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            self._json({"error": "digest mismatch"}, 400)
            return
        self.server.blobs[digest] = data
        self._empty(201)

    def _missing(self, body: dict[str, Any]) -> None:
        self._json({"error": f"model '{body.get('model') or body.get('source')}' not found"}, 404)

    def _json(self, payload: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _lines(self, parts: list[dict[str, Any]]) -> None:
        self._start(200)
        for part in parts:
            self._chunk(json.dumps(part).encode() + b"\n")
        self._chunk(b"")

    def _start(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


@contextlib.contextmanager
def native_server(server_header: str = "corral") -> Iterator[NativeServer]:
    server = NativeServer(server_header)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
