"""Local servers that speak the protocols of the Hugging Face hub and of a package index, and misbehave on demand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import re
import socket
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE_BYTES = 4096
COMMIT = "c" * 40


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class LocalServer:
    """An HTTP/1.1 server on a port of its own. `routes` maps a path to what answers it; all else is 404."""

    host: str = "127.0.0.1"
    routes: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[LocalServer]:
        outer = self

        class Bound(self.handler):  # type: ignore[misc,name-defined]
            local = outer

        with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
            server.daemon_threads = True
            self.url = f"http://{self.host}:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    @property
    def handler(self) -> type[Handler]:
        return Handler

    def gets(self, path: str) -> list[Seen]:
        return [s for s in self.seen if s.method == "GET" and s.path == path]


class Handler(BaseHTTPRequestHandler):
    """One connection of a LocalServer, with the ways of answering that the fakes share."""

    protocol_version = "HTTP/1.1"
    local: LocalServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.local.seen.append(Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        route = self.local.routes.get(self.path)
        if route is None:
            self.reply(404, b"no such page", "text/plain")
        else:
            route(self)

    def hang_up(self) -> None:
        """Breaks the connection without another word."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: what arrived is in `seen`."""

    def reply(self, status: int, body: bytes = b"", content_type: str = "text/html", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@dataclass
class FileRoute:
    """Serves bytes with ETag, Range and If-Range, as object stores do.

    `break_after` and `stall_after` hold, for the next bodies, the number of bytes after which the connection is
    closed, or nothing more comes until the client hangs up; `statuses` are errors to give first.
    """

    data: bytes
    has_ranges: bool = True
    break_after: deque[int] = field(default_factory=deque)
    stall_after: deque[int] = field(default_factory=deque)
    statuses: deque[int] = field(default_factory=deque)
    headers: dict[str, str] = field(default_factory=dict)
    credentials: tuple[str, str] | None = None
    statuses_headers: dict[str, str] = field(default_factory=dict)
    piece_s: float = 0.0  # how long the link takes for a piece

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'

    def __call__(self, handler: Handler) -> None:
        if self.credentials and not _is_authorised(handler, self.credentials):
            handler.reply(401, b"who are you?", "text/plain", WWW_Authenticate='Basic realm="index"')
            return
        if self.statuses:
            handler.reply(self.statuses.popleft(), b"not now", "text/plain", **self.statuses_headers)
            return
        start, end = self._range(handler)
        if start >= len(self.data) > 0:
            handler.reply(416, b"", "text/plain", Content_Range=f"bytes */{len(self.data)}")
            return
        body = self.data[start:end]
        handler.send_response(206 if len(body) < len(self.data) else 200)
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Type", "application/octet-stream")
        handler.send_header("Content-Length", str(len(body)))
        if len(body) < len(self.data):
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(self.data)}")
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            self._send(handler, body)

    def _range(self, handler: Handler) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        if not match or not self.has_ranges or handler.headers.get("If-Range", self.etag) != self.etag:
            return 0, len(self.data)
        return int(match[1]), min(int(match[2]) + 1, len(self.data)) if match[2] else len(self.data)

    def _send(self, handler: Handler, body: bytes) -> None:
        limit = len(body)
        stalls = False
        if self.break_after:
            limit = self.break_after.popleft()
        elif self.stall_after:
            limit = self.stall_after.popleft()
            stalls = limit < len(body)
        with contextlib.suppress(ConnectionError):
            for offset in range(0, min(limit, len(body)), PIECE_BYTES):
                handler.wfile.write(body[offset : min(offset + PIECE_BYTES, limit)])
                if self.piece_s:
                    time.sleep(self.piece_s)
            if stalls:
                handler.connection.recv(1)  # returns when the client hangs up
        handler.close_connection = handler.close_connection or limit < len(body)


def _is_authorised(handler: Handler, credentials: tuple[str, str]) -> bool:
    expected = base64.b64encode(":".join(credentials).encode()).decode()
    return bool(handler.headers.get("Authorization") == f"Basic {expected}")


@dataclass
class FakeHub:
    """The hub and the content network that it redirects to: two servers with two host names."""

    hub: LocalServer
    cdn: LocalServer
    token: str = ""
    gated: set[str] = field(default_factory=set)
    listings: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def publish(self, repo: str, filename: str, data: bytes, *, is_large: bool = True) -> FileRoute:
        """A file of a repository as it is today: in its listing, at its commit; the hub itself sends a small one."""
        digest = hashlib.sha256(data).hexdigest()
        listing = self.listings.setdefault(repo, [])
        lfs = {"sha256": digest, "size": len(data), "pointerSize": 134}
        listing.append({"rfilename": filename, "size": len(data), **({"lfs": lfs} if is_large else {})})
        self.hub.routes[f"/api/models/{repo}?blobs=true"] = lambda handler: self._list(handler, repo)
        if is_large:
            return self.add(repo, filename, data, COMMIT)
        route = FileRoute(data)
        self.hub.routes[f"/{repo}/resolve/{COMMIT}/{filename}"] = route
        return route

    def _list(self, handler: Handler, repo: str) -> None:
        if self._refuses(handler, ""):
            return
        gated = "auto" if repo in self.gated else False
        page = {"id": repo, "sha": COMMIT, "gated": gated, "siblings": self.listings[repo]}
        handler.reply(200, json.dumps(page).encode(), "application/json")

    def _refuses(self, handler: Handler, repo: str) -> bool:
        """What a private repository, and the files of a gated one, say to whom they do not know."""
        if not self.token or handler.headers.get("Authorization") == f"Bearer {self.token}":
            return False
        if repo in self.gated:
            handler.reply(403, b"", X_Error_Code="GatedRepo", X_Error_Message=f"Access to model {repo} is restricted.")
        elif self.gated:
            return False
        else:
            handler.reply(401, b"", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        return True

    def add(self, repo: str, filename: str, data: bytes, revision: str = "main", **claims: str) -> FileRoute:
        """Publish a file; `claims` replace the headers of the hub's answer, to make it lie."""
        digest = hashlib.sha256(data).hexdigest()
        route = FileRoute(data)
        self.cdn.routes[f"/{digest}"] = route
        location = f"{self.cdn.url}/{digest}"
        headers = {"X_Linked_Size": str(len(data)), "X_Linked_ETag": f'"{digest}"', "X_Repo_Commit": "c" * 40} | claims

        def answer(handler: Handler) -> None:
            if not self._refuses(handler, repo):
                handler.reply(302, b"", "text/html", Location=location, **headers)

        self.hub.routes[f"/{repo}/resolve/{revision}/{filename}"] = answer
        return route


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    with LocalServer().running() as hub, LocalServer(host="localhost").running() as cdn:
        yield FakeHub(hub, cdn)


@dataclass
class FakeIndex:
    """A package index; `as_json` answers by PEP 691, else by PEP 503."""

    server: LocalServer
    as_json: bool = True
    has_digests: bool = True
    credentials: tuple[str, str] | None = None
    projects: dict[str, list[tuple[str, FileRoute]]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.server.url}/simple"

    def add(self, project: str, filename: str, data: bytes) -> FileRoute:
        route = FileRoute(data, credentials=self.credentials)
        self.server.routes[f"/files/{filename}"] = route
        self.projects.setdefault(project, []).append((filename, route))
        self.server.routes[f"/simple/{project}/"] = lambda handler: self._page(handler, project)
        return route

    def _page(self, handler: Handler, project: str) -> None:
        if self.credentials and not _is_authorised(handler, self.credentials):
            handler.reply(401, b"who are you?", "text/plain", WWW_Authenticate='Basic realm="index"')
            return
        files = [
            (n, hashlib.sha256(r.data).hexdigest() if self.has_digests else None) for n, r in self.projects[project]
        ]
        if self.as_json and "v1+json" in handler.headers.get("Accept", ""):
            entries = [
                {"filename": n, "url": f"../../files/{n}", "hashes": {"sha256": d} if d else {}} for n, d in files
            ]
            page = json.dumps({"meta": {"api-version": "1.0"}, "name": project, "files": entries}).encode()
            handler.reply(200, page, "application/vnd.pypi.simple.v1+json")
            return
        anchors = "".join(f'<a href="../../files/{n}{f"#sha256={d}" if d else ""}">{n}</a><br/>' for n, d in files)
        handler.reply(200, f"<!DOCTYPE html><html><body>{anchors}</body></html>".encode(), "text/html; charset=utf-8")


@contextlib.contextmanager
def fake_index() -> Iterator[FakeIndex]:
    with LocalServer().running() as server:
        yield FakeIndex(server)


def make_wheel(
    project: str, version: str, members: dict[str, bytes], *, is_compressed: bool = True
) -> tuple[str, bytes]:
    """File name and bytes of a wheel with these members."""
    stem = f"{project.replace('-', '_')}-{version}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if is_compressed else zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return f"{stem}-py3-none-any.whl", buffer.getvalue()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """Address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def refused_url() -> str:
    """Address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
