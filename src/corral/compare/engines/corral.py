"""Corral itself: this interpreter's, or that of another environment, for one version beside another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from corral.compare.engines.engine import HOST, EngineMissing, Found, Launch, Settings, Setup
from corral.compare.engines.installed import installed
from corral.compare.engines.programs import ask, ask_installed, find_program, python_of
from corral.compare.engines.replies import answers_ok, at, get_json, number, objects, text, whole
from corral.compare.engines.typed import question, typed

_READY_S = 300.0


class Corral:
    """`corral serve FILE`."""

    def __init__(self, name: str = "corral", path: Path | None = None) -> None:
        self.name = name
        self._path = path

    def find(self) -> Found:
        program = find_program(self.name, "corral", self._path) if self._path else None
        if program is None:
            from corral import __version__

            return Found(Path(sys.executable), __version__, _bytes(installed(["corral"])))  # None in a checkout
        version = ask([str(program), "--version"]).split()[-1]
        python = python_of(program)
        return Found(program, version, _bytes(ask_installed(python, ["corral"])) if python else None)

    def launch(self, found: Found, setup: Setup, port: int, folder: Path) -> Launch:
        home, cache = folder / "corral-home", folder / "corral-cache"
        try:
            home.mkdir(exist_ok=True)
            cache.mkdir(exist_ok=True)
        except OSError as error:
            raise EngineMissing(f"{self.name} has no folder for its cache: {error.strerror}") from error
        program = (str(found.program), *(("-m", "corral") if found.program.name.startswith("python") else ()))
        argv = (
            *(*program, "serve", str(setup.model), "--host", HOST, "--port", str(port)),
            *("--served-model-name", setup.name, "--max-model-len", str(setup.context)),
            *("--max-num-seqs", str(setup.slots), "--threads", str(setup.threads), *setup.flags),
        )
        plain = typed(argv, {})
        return Launch(
            argv=argv,
            # No settings, keys and packed weights of the user's own.
            environment={"CORRAL_HOME": str(home), "CORRAL_CACHE": str(cache)},
            weights=setup.model.name,
            digest=setup.digest,
            steps=("pip install corral", plain, question(setup.name, port)),
            ready_s=_READY_S,
            files=(setup.model, cache),
            notes=("its first start packs the weights and keeps them on disk; later starts map those",),
        )

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        return await answers_ok(client, "/readyz")

    async def prepare(self, client: httpx.AsyncClient, setup: Setup) -> Sequence[str]:
        return ()

    async def settings(self, client: httpx.AsyncClient, setup: Setup) -> Settings:
        return read_settings(
            await get_json(client, "/limits"), await get_json(client, "/api/ps"), await get_json(client, "/v1/models")
        )

    def body(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
        return fields if min_tokens is None else {**fields, "ignore_eos": True, "min_tokens": min_tokens}


def read_settings(limits: Any, loaded: Any, models: Any) -> Settings:
    """Of the replies to /limits, /api/ps and /v1/models."""
    rows = {row.get("name"): row.get("value") for row in objects(at(limits, "data"))}
    model = next(iter(objects(at(loaded, "models"))), {})
    more = {
        "quantisation": text(at(model, "details", "quantization_level")),
        "weights in memory": _mib(model.get("weights_bytes")),
        "keys and values": "memory is taken as they come, up to the limit",
        "keys and values now": _mib(model.get("kv_used_bytes")),
        "longest queue": _plain(rows.get("waiting")),
    }
    return Settings(
        model=text(at(models, "data", 0, "id")),
        context=whole(rows.get("context")) or whole(at(models, "data", 0, "max_model_len")),
        slots=whole(rows.get("running")),
        kv_reserved_bytes=whole(model.get("kv_limit_bytes")),
        more={key: value for key, value in more.items() if value},
    )


def _mib(value: Any) -> str | None:
    size = whole(value)
    return None if size is None else f"{size / 2**20:.1f} MiB"


def _plain(value: Any) -> str | None:
    found = number(value)
    return None if found is None else f"{found:g}"


def _bytes(told: dict[str, Any]) -> int | None:
    return whole(told.get("bytes"))
