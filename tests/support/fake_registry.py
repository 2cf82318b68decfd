"""A local registry that speaks Ollama's protocol: pull, push, sign-in, and a content network that it redirects to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.support.fake_hub import FileRoute, Handler, LocalServer, Seen

_PATH = re.compile(r"/v2/(?P<repo>[^/]+/[^/]+)/(?P<kind>manifests|blobs)/(?P<rest>.*)")


class _RegistryHandler(Handler):
    """Asks the registry for every answer."""

    def _answer(self) -> None:
        self.local.seen.append(Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        assert isinstance(self.local, _RegistryServer)
        self.local.registry.answer(self)


@dataclass
class _RegistryServer(LocalServer):
    registry: FakeRegistry = field(init=False)

    @property
    def handler(self) -> type[Handler]:
        return _RegistryHandler


@dataclass
class FakeRegistry:
    """`user` turns sign-in on: "" lets anybody have a token, "name:password" only him."""

    server: LocalServer
    cdn: LocalServer
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, FileRoute] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    user: str | None = None
    scheme: str = "Bearer"
    realm: str = ""
    break_uploads: int = 0  # so many chunks break off half-way
    tokens: int = 0

    @property
    def host(self) -> str:
        return self.server.url.removeprefix("http://")

    def name(self, model: str) -> str:
        return f"{self.server.url}/{model}"

    def add(self, model: str, layers: list[tuple[str, bytes]], config: bytes = b"{}") -> dict[str, FileRoute]:
        """Publish `namespace/model:tag` with (media type, bytes) layers; returns what serves each, by media type."""
        entries = [self._blob(kind, data) for kind, data in layers]
        kind = "application/vnd.docker.container.image.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": self._blob(kind, config)[0],
            "layers": [entry for entry, _ in entries],
        }
        self.manifests[model] = json.dumps(manifest, separators=(",", ":")).encode()
        return {str(entry["mediaType"]): route for entry, route in entries}

    def _blob(self, kind: str, data: bytes) -> tuple[dict[str, object], FileRoute]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        route = self.blobs.setdefault(digest, FileRoute(data))
        self.cdn.routes[f"/cdn/{digest}"] = route
        return {"mediaType": kind, "digest": digest, "size": len(data)}, route

    def answer(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        if parts.path == "/token":
            self._token(handler)
        elif self._is_known(handler):
            self._serve(handler, parts.path, parse_qs(parts.query))

    def _token(self, handler: Handler) -> None:
        expected = f"Basic {base64.b64encode((self.user or '').encode()).decode()}"
        if self.user and handler.headers.get("Authorization") != expected:
            handler.reply(401, b"{}", "application/json")
            return
        self.tokens += 1
        handler.reply(200, json.dumps({"token": f"t{self.tokens}"}).encode(), "application/json")

    def _is_known(self, handler: Handler) -> bool:
        if self.user is None or handler.path == "/v2/":
            return True
        given = handler.headers.get("Authorization", "")
        basic = f"Basic {base64.b64encode(self.user.encode()).decode()}"
        if given == (f"Bearer t{self.tokens}" if self.scheme == "Bearer" else basic) and (
            self.tokens or basic == given
        ):
            return True
        handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        realm = self.realm or f"{self.server.url}/token"
        challenge = f'{self.scheme} realm="{realm}",service="registry",scope="repository:x:pull"'
        handler.reply(401, b'{"errors":[{"message":"who are you?"}]}', "application/json", WWW_Authenticate=challenge)
        return False

    def _serve(self, handler: Handler, path: str, query: dict[str, list[str]]) -> None:
        match = _PATH.fullmatch(path)
        if match is None:
            handler.reply(404 if path != "/v2/" else 200, b"{}", "application/json")
        elif match["kind"] == "manifests":
            self._manifest(handler, f"{match['repo']}:{match['rest']}")
        elif match["rest"].startswith("uploads/"):
            self._upload(handler, match["repo"], match["rest"].removeprefix("uploads/"), query)
        else:
            self._get_blob(handler, match["rest"])

    def _manifest(self, handler: Handler, model: str) -> None:
        if handler.command == "PUT":
            self.manifests[model] = handler.rfile.read(int(handler.headers["Content-Length"]))
            handler.reply(201, b"")
        elif model in self.manifests:
            handler.reply(200, self.manifests[model], "application/vnd.docker.distribution.manifest.v2+json")
        else:
            handler.reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}', "application/json")

    def _get_blob(self, handler: Handler, digest: str) -> None:
        if digest not in self.blobs:
            handler.reply(404, b"{}", "application/json")
        elif handler.command == "HEAD":
            handler.reply(200, b"", "application/octet-stream")
        else:
            handler.reply(307, b"", Location=f"{self.cdn.url}/cdn/{digest}")

    def _upload(self, handler: Handler, repo: str, session: str, query: dict[str, list[str]]) -> None:
        length = int(handler.headers.get("Content-Length", "0"))
        if handler.command == "POST":
            session = f"s{len(self.uploads) + 1}"
            self.uploads[session] = bytearray()
            handler.reply(202, b"", Location=f"/v2/{repo}/blobs/uploads/{session}")
            return
        if session not in self.uploads:
            handler.rfile.read(length)
            handler.reply(404, b"{}", "application/json")
            return
        there = self.uploads[session]
        location = f"/v2/{repo}/blobs/uploads/{session}"
        if handler.command == "GET":
            handler.reply(204, b"", Location=location, Range=f"0-{len(there) - 1}")
        elif handler.command == "PATCH":
            self._chunk(handler, there, length, location)
        else:
            digest = f"sha256:{hashlib.sha256(there).hexdigest()}"
            is_right = query.get("digest") == [digest]
            if is_right:
                self.blobs[digest] = FileRoute(bytes(there))
                self.cdn.routes[f"/cdn/{digest}"] = self.blobs[digest]
            handler.reply(201 if is_right else 400, b'{"errors":[{"message":"digest invalid"}]}', "application/json")

    def _chunk(self, handler: Handler, there: bytearray, length: int, location: str) -> None:
        begin = int(handler.headers["Content-Range"].partition("-")[0])
        if begin != len(there):
            handler.rfile.read(length)
            handler.reply(416, b"", Location=location, Range=f"0-{len(there) - 1}")
            return
        if self.break_uploads:
            self.break_uploads -= 1
            there += handler.rfile.read(length // 2)
            handler.hang_up()
            return
        there += handler.rfile.read(length)
        handler.reply(202, b"", Location=location, Range=f"0-{len(there) - 1}")


@contextlib.contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    server = _RegistryServer()
    with server.running(), LocalServer(host="localhost").running() as cdn:
        server.registry = FakeRegistry(server, cdn)
        yield server.registry
