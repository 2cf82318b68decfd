"""What runs already, at any OpenAI-compatible address: neither started nor stopped by us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from corral.compare.engines.corral import Corral
from corral.compare.engines.engine import Engine, EngineMissing, Found, Launch, Settings, Setup
from corral.compare.engines.llama_cpp import LlamaCpp
from corral.compare.engines.ollama import Ollama
from corral.compare.engines.replies import answers_ok, at, get_json, text
from corral.compare.engines.typed import question
from corral.compare.engines.vllm import Vllm

_TIMEOUT_S = 10.0


class Attached:
    """Told apart by its routes, so that it is asked in its own words and its settings can be read back.

    Args:
        url: without /v1, which may stand at its end.
    """

    def __init__(self, name: str, url: str) -> None:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise EngineMissing(f"--attach {name}={url}: an address begins with http:// or https:// and names a host")
        self.name = name
        self.url = url.rstrip("/").removesuffix("/v1")
        self._kind: Engine | None = None
        self._models: list[str] = []

    def find(self) -> Found:
        try:
            with httpx.Client(base_url=self.url, timeout=_TIMEOUT_S, trust_env=False) as client:
                self._models = _model_names(client)
                self._kind, version = _kind(client)
        except httpx.HTTPError as error:
            raise EngineMissing(f"nobody answers at {self.url}: {type(error).__name__}: {error}") from error
        if self._kind is not None and not self._models:
            return Found(Path(), version)
        if not self._models:
            raise EngineMissing(f"{self.url}/v1/models lists no model, so it does not speak OpenAI's protocol")
        return Found(Path(), version)

    def launch(self, found: Found, setup: Setup, port: int, folder: Path) -> Launch:
        if self._models and setup.name not in self._models:
            known = ", ".join(self._models[:10])
            raise EngineMissing(f"{self.url} has no model {setup.name!r}; it has {known}: name it by --model-name")
        if setup.flags:
            raise EngineMissing(f"{self.name} runs already, so it can be given no flags: {' '.join(setup.flags)}")
        return Launch(
            argv=(),
            weights="not told",
            steps=(question(setup.name, port),),
            notes=(
                "it ran already: its start, weights and settings are its owner's, and its resources not ours to see",
            ),
        )

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        return await answers_ok(client, "/v1/models")

    async def prepare(self, client: httpx.AsyncClient, setup: Setup) -> Sequence[str]:
        return ()

    async def settings(self, client: httpx.AsyncClient, setup: Setup) -> Settings:
        if self._kind is not None:
            return await self._kind.settings(client, setup)
        return Settings(model=text(at(await get_json(client, "/v1/models"), "data", 0, "id")))

    def body(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
        """Of an unknown engine OpenAI's fields alone, as others may be refused."""
        return fields if self._kind is None else self._kind.body(fields, min_tokens=min_tokens)


def _kind(client: httpx.Client) -> tuple[Engine | None, str]:
    """By a route that it alone has, and its version."""
    signs: list[tuple[str, Callable[[], Engine], tuple[str, ...]]] = [
        ("/limits", Corral, ()),  # before Ollama's, whose routes it has too
        ("/props", LlamaCpp, ("build_info",)),
        ("/api/version", Ollama, ("version",)),
        ("/version", Vllm, ("version",)),
    ]
    for route, kind, key in signs:
        told = _json(client, route)
        if at(told, *key) is None:
            continue
        version = text(at(told, *key)) or text(at(_json(client, "/version"), "version"))
        return kind(), f"{kind().name} {version or 'unknown'}, by what it answers"
    return None, "unknown"


def _model_names(client: httpx.Client) -> list[str]:
    data = at(_json(client, "/v1/models"), "data")
    return [name for item in data if (name := text(at(item, "id")))] if isinstance(data, list) else []


def _json(client: httpx.Client, route: str) -> Any:
    try:
        response = client.get(route)
        return response.json() if response.status_code == httpx.codes.OK else None
    except (ValueError, RecursionError):
        return None
