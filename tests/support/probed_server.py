"""A scripted server for the probes: it does all that they want, but for the faults that it is told to have."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import posixpath
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.support import probed_answers
from tests.support.probed_answers import MODEL

HOST = "127.0.0.1"
MAX_HEAD, MAX_BODY = 64 << 10, 1 << 20
CONTEXT = 64
HEAD_S = 0.3
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 0
vllm:num_requests_waiting 0
vllm:kv_cache_usage_perc 0.5
vllm:cache_config_info{block_size="16"} 1
vllm:prompt_tokens_total 3
vllm:generation_tokens_total 3
vllm:request_success_total 1
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="+Inf"} 1
vllm:inter_token_latency_seconds_bucket{le="0.1"} 1
vllm:e2e_request_latency_seconds_count 1
"""
_PUBLIC = {"/health", "/livez", "/readyz"}
_PAGES = {"/slots", "/api/ps"}


@dataclass(slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Refusal(Exception):
    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)


class ProbedServer:
    """Also a probe's Process: it drains, crashes and starts again in this process.

    Args:
        faults: by their names, which stand where they are done.
        gap_s: between tokens of a stream.
        slots: chats at once; more wait in a queue.
    """

    def __init__(self, *faults: str, key: str = "", gap_s: float = 0.0, slots: int = 64, queue: int = 512) -> None:
        self.faults, self.key, self.gap_s, self.num_slots, self.queue = set(faults), key, gap_s, slots, queue
        self.port = 0
        self.said = ""  # the last prompt
        self.is_draining = False
        self._code: int | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[Any]] = set()
        self._crashed = asyncio.Event()
        self._slots = asyncio.Semaphore(slots)
        self._waiting = 0
        self._connections = asyncio.Semaphore(16 if "few connections" in self.faults else 10_000)

    # As a Process.

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def tree(self) -> Sequence[int]:
        return [os.getpid()]

    def code(self) -> int | None:
        return self._code

    def terminate(self) -> None:
        self.is_draining = True
        task = asyncio.get_running_loop().create_task(self._drain())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        if "cuts streams at the end" not in self.faults:
            while self._streams:  # noqa: ASYNC110 - until the last one is over
                await asyncio.sleep(0.01)
        if "never ends" not in self.faults:
            self._end(0)

    def kill(self) -> None:
        self._end(-9)

    def kill_child(self) -> int | None:
        if "one process" in self.faults:
            return None
        self._crashed.set()
        if "ends with its worker" in self.faults:
            self._end(1)
        return 1

    async def restart(self) -> None:
        self._end(-9)
        self.is_draining, self._code = False, None
        self._crashed = asyncio.Event()
        await self.start()

    def _end(self, code: int) -> None:
        self._code = code
        if self._server is not None:
            self._server.close()
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.url

    async def stop(self) -> None:
        self._end(0)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # HTTP.

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._connections:
                with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
                    try:
                        await self._answer(await self._read(reader), writer)
                    except Refusal as refusal:
                        self._refuse(writer, refusal)
                    except (ValueError, RecursionError) as error:
                        status = 500 if "500 on bad JSON" in self.faults else 400
                        self._refuse(writer, Refusal(status, f"bad JSON: {type(error).__name__}"))
                    await writer.drain()
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        data = b""
        async with asyncio.timeout(None if "waits for heads" in self.faults else HEAD_S):
            while b"\r\n\r\n" not in data:
                part = await reader.read(1 << 16)
                if not part:
                    raise ConnectionResetError
                data = (data + part)[-MAX_HEAD:] if "any head" in self.faults else data + part
                if len(data) > MAX_HEAD:
                    raise Refusal(431, "the head is too large")
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, _, rest = first.partition(" ")
        request = Request(method, rest.rpartition(" ")[0], headers)
        is_chunked = headers.get("transfer-encoding") == "chunked"
        length = int(headers.get("content-length", 0))
        if length > MAX_BODY and "any declared body" not in self.faults:
            raise Refusal(413, "the body is too large")
        while len(body) < length or is_chunked:
            part = await reader.read(1 << 18)
            if not part:
                raise ConnectionResetError
            body = part if "any chunked body" in self.faults and is_chunked else body + part
            if len(body) > MAX_BODY and is_chunked:
                raise Refusal(413, "the body is too large")
        request.body = body
        return request

    def _refuse(self, writer: asyncio.StreamWriter, refusal: Refusal) -> None:
        error: dict[str, Any] = {"message": refusal.message, "type": "t", "param": None, "code": None}
        if "poor errors" in self.faults:
            error = {"message": refusal.message, "code": refusal.status}
        body = b"no" if "plain errors" in self.faults else json.dumps({"error": error}).encode()
        self._write(writer, refusal.status, body, refusal.headers)

    def _write(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        if "tells its version" in self.faults:
            fields["Server"] = "scripted/1.2.3"
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} x\r\n{lines}\r\n".encode() + body)

    def _check(self, request: Request) -> dict[str, str]:
        """Who may ask; headers for him."""
        faults, origin = self.faults, request.headers.get("origin", "")
        host = request.headers.get("host", "")
        headers = {}
        if origin and "any origin" in faults:
            headers["Access-Control-Allow-Origin"] = "*" if "star" in faults else origin
        elif origin and "plain posts" not in faults:
            raise Refusal(403, "foreign origin")
        if not self.key and "any host" not in faults and host.partition(":")[0] not in (HOST, "localhost"):
            raise Refusal(403, "foreign host")
        if self.key and request.path not in _PUBLIC and f"open {request.path}" not in faults:
            if "guards /v1/ alone" in faults and not request.path.startswith("/v1/"):
                return headers
            if "believes Host" in faults and host.startswith("x/health"):
                return headers
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not given.isascii() and "500 on odd keys" in faults:
                raise Refusal(500, "odd")
            is_right = given == self.key or ("part of a key" in faults and given and self.key.startswith(given))
            if not is_right:
                raise Refusal(401, "no key", {} if "bare 401" in faults else {"WWW-Authenticate": "Bearer"})
        return headers

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        headers = self._check(request)
        path = request.path
        if "guards /v1/ alone" in self.faults or "believes Host" in self.faults:
            path = posixpath.normpath(unquote(path)).replace("//", "/")
        route = request.method, path
        if route == ("POST", "/v1/chat/completions") or route == ("POST", "/invocations"):
            await self._chat(request, writer, headers)
            return
        body = self._page(request.method, path)
        self._write(writer, 200, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)

    def _page(self, method: str, path: str) -> Any:
        faults = self.faults
        if method == "OPTIONS":
            return {}
        if method == "GET" and path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "x"}
            if "poor models" in faults:
                model.pop("owned_by")
            return {"object": "list", "data": [] if "no models" in faults else [model]}
        if method == "GET" and path == f"/v1/models/{MODEL}":
            return {"id": MODEL}
        if method == "GET" and path in _PUBLIC and "no health" not in faults:
            if self.is_draining and path != "/livez" and "blind health" not in faults:
                raise Refusal(503, "it drains")
            return {}
        if path == "/" and "root alone" in faults:
            return b"it runs"
        if path == "/metrics" and "no metrics" not in faults:
            if "metrics by a flag" in faults:
                raise Refusal(501, "start it with --metrics")
            if "odd metrics" in faults:
                return b"<html>"
            return (METRICS.replace("vllm:", "own_") if "own metrics" in faults else METRICS).encode()
        if path == "/limits":
            return {"data": [{}]}
        if path in _PAGES and "shows words" in faults:
            return {"prompt": self.said}
        if path == "/version" and "tells its version" in faults:
            return {"version": "1.2.3"}
        if path.startswith("/api/") and method in ("POST", "DELETE") and "manages" in faults and "route" not in path:
            raise Refusal(404, "model 'x' not found")
        raise Refusal(404, f"no route {path}")

    # Chats.

    async def _chat(self, request: Request, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        body = self._read_chat(request)
        if "x-request-id" in request.headers and "no ids" not in self.faults:
            headers["X-Request-ID"] = "other" if "own ids" in self.faults else request.headers["x-request-id"]
        if self.is_draining and "takes while it drains" not in self.faults:
            raise Refusal(503, "it drains", {"Retry-After": "1"})
        if self._waiting >= self.queue:
            if "drops" in self.faults:
                raise ConnectionResetError
            raise Refusal(503, "busy", {} if "no Retry-After" in self.faults else {"Retry-After": "1"})
        self._waiting += 1
        async with self._slots:
            self._waiting -= 1
            if not body.get("stream"):
                await asyncio.sleep(self.gap_s)
                reply = probed_answers.completion(body, self.faults)
                self._write(writer, 200, json.dumps(reply).encode(), headers)
                return
            task = asyncio.get_running_loop().create_task(self._stream(body, writer))
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)
            try:
                await task
            except ConnectionError:
                if "works for nobody" in self.faults:
                    await asyncio.sleep(30)
                raise

    def _read_chat(self, request: Request) -> dict[str, Any]:
        faults = self.faults
        if "plain posts" not in faults and "json" not in request.headers.get("content-type", ""):
            raise Refusal(415, "no JSON")
        body = request.json()
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages:
            raise Refusal(400, "messages must be a list")
        if messages[0].get("role") not in ("user", "system") and "any role" not in faults:
            raise Refusal(400, "unknown role")
        for name in ("temperature", "max_tokens", "n"):
            value = body.get(name, 1)
            if not isinstance(value, int | float) or value < 0:
                raise Refusal(400, f"{name} is out of range")
        if body.get("model") != MODEL and "any model" not in faults:
            raise Refusal(404, "no such model")
        if "corral_probe_field" in body and "any field" not in faults:
            raise Refusal(400, "unknown field corral_probe_field")
        if body.get("tools") and "refuses tools" in faults:
            raise Refusal(400, "the model has no tools")
        if int(body.get("n") or 1) > 1 and "refuses n" in faults:
            raise Refusal(400, "n must be 1")
        self.said = str(messages[0].get("content"))
        if len(self.said.split()) > CONTEXT and "cuts prompts" not in faults:
            raise Refusal(400, "the prompt is too long" if "says no limit" in faults else f"the context is {CONTEXT}")
        return dict(body)

    async def _stream(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        kind = "application/json" if "wrong content type" in self.faults else "text/event-stream"
        writer.write(f"HTTP/1.1 200 x\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode())
        for event in probed_answers.events(body, self.faults):
            if writer.is_closing() or self._code is not None:
                raise ConnectionResetError
            if self._crashed.is_set():
                if "hangs after a crash" in self.faults:
                    await asyncio.sleep(30)
                if "cut after a crash" not in self.faults:
                    writer.write(b'data: {"error": {"message": "the worker died"}}\n\n')
                self._crashed = asyncio.Event()
                return
            writer.write(event)
            await writer.drain()
            await asyncio.sleep(self.gap_s)


@contextlib.contextmanager
def open_door() -> Any:
    """A socket of this process that listens beyond loopback."""
    with socket.socket() as door:
        door.bind(("0.0.0.0", 0))
        door.listen(1)
        yield door
