"""A server of Ollama's API over a store in a temporary folder and real workers: what `corral serve` is, in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.config import EngineConfig, ServerConfig
from corral.errors import ModelNotFound
from corral.server.app import build_app
from corral.server.model_manager import ModelManager
from corral.server.store_access import StoreAccess
from corral.store.library import Library
from corral.store.local_model import LocalModel
from corral.store.names import parse_name
from tests.support.live_app import live_app


@dataclass
class LibraryNames:
    """All that lies in a library."""

    library: Library

    def lookup(self, name: str) -> LocalModel:
        stored = self.library.find(parse_name(name))
        if stored is None:
            raise ModelNotFound(f"model '{name}' not found")
        return stored.to_local()

    def all(self) -> Sequence[LocalModel]:
        return [stored.to_local() for stored in self.library.models()]


@contextlib.contextmanager
def native_models(root: Path, engine: EngineConfig | None = None) -> Iterator[tuple[str, StoreAccess]]:
    """URL and store of a running server."""
    store = StoreAccess(Library(root))
    made: list[ModelManager] = []

    def make_app() -> Any:
        config = ServerConfig()
        made.append(ModelManager(LibraryNames(store.library), engine or EngineConfig(), config))
        return build_app(made[0], config, store=store)

    async def close() -> None:
        await made[0].close()

    with live_app(make_app, close) as url:
        yield url, store
