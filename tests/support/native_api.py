"""A server of Ollama's API over scripted models and a store that is a temporary folder."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx

from corral.config import ServerConfig
from corral.errors import CorralError
from corral.server.app import build_app
from corral.server.model_manager import ModelManager
from corral.server.store_access import StoreAccess
from corral.store.library import Library, StoredModel
from corral.store.local_model import LocalModel
from corral.store.manifest import CONFIG, LICENSE, MODEL, PARAMS, SYSTEM, Layer, Manifest
from corral.store.names import parse_name
from corral.store.status import OnStatus, Status
from tests.support.fake_manager import FakeManager
from tests.support.live_app import live_app

DIGEST = "sha256:" + "ab" * 32


@dataclass
class ScriptedStore(StoreAccess):
    """A real library; what would need a network or another model says its script, the model's name."""

    root: Path
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    abandoned: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(Library(self.root))

    def pull(self, name: str, on_status: OnStatus, *, insecure: bool) -> StoredModel:
        self.calls.append(("pull", name, insecure))
        self._tell(name, on_status)
        return cast(StoredModel, None)

    def push(self, name: str, on_status: OnStatus, *, insecure: bool) -> None:
        self.calls.append(("push", name, insecure))
        self._tell(name, on_status)

    def create(self, name: str, spec: Any, on_status: OnStatus) -> StoredModel:
        self.calls.append(("create", name, spec))
        self._tell(name, on_status)
        return cast(StoredModel, None)

    def modelfile(self, stored: StoredModel) -> str:
        return f"FROM {stored.name}\n"

    def _tell(self, name: str, on_status: OnStatus) -> None:
        if name == "refused":
            raise CorralError("it cannot be done")
        on_status(Status("pulling manifest"))
        if name == "broken":
            raise CorralError("pull model manifest: file does not exist")
        try:
            while name == "endless":
                on_status(Status("pulling abababababab", DIGEST, 100, 7))
        except BaseException:
            self.abandoned.set()
            raise
        on_status(Status("pulling abababababab", DIGEST, 100, 100))
        on_status(Status("success"))


@dataclass
class NativeServer:
    url: str
    manager: FakeManager
    store: ScriptedStore

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        content = None if body is None else json.dumps(body)
        return httpx.request(method, self.url + path, content=content, timeout=60, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.call("POST", path, body, **more)

    def lines(self, path: str, body: Any) -> list[dict[str, Any]]:
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in response.text.splitlines()]


def add_model(store: StoreAccess, name: str, gguf: Path, **parameters: Any) -> LocalModel:
    """A model of the store: the file, a licence, a system message and parameters."""
    library = store.library
    layers = (
        library.link_file(gguf, MODEL, lambda _: None),
        library.add_bytes(b"MIT", LICENSE),
        library.add_bytes(b"Be brief.", SYSTEM),
        library.add_bytes(json.dumps(parameters).encode(), PARAMS),
    )
    config: Layer = library.add_bytes(b"{}", CONFIG)
    return library.write(parse_name(name), Manifest(config, layers)).to_local()


@contextlib.contextmanager
def native_server(root: Path, gguf: Path, **config: Any) -> Iterator[NativeServer]:
    """Serves tiny:latest, with a Modelfile, and the bare file as file:latest."""
    store = ScriptedStore(root)
    manager = FakeManager()
    manager.add(add_model(store, "tiny", gguf, temperature=0.25, stop=["END", "FIN"], num_ctx=2048))
    manager.add(LocalModel("file:latest", gguf))

    def make_app() -> Any:
        return build_app(cast(ModelManager, manager), ServerConfig(**config), store=store)

    with live_app(make_app) as url:
        yield NativeServer(url, manager, store)
