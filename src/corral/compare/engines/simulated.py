"""A server without a model as an engine: it shows that a comparison reads what is there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from corral.compare.engines import simulated_server
from corral.compare.engines.engine import Found, Launch, Settings, Setup
from corral.compare.engines.replies import answers_ok
from corral.compare.engines.typed import typed

_READY_S = 30.0


class Simulated:
    """Its delays are known, so what is read off it can be held against the truth. Flags change them.

    Args:
        ttft_s, gap_s: to the first text, and between pieces of text.
    """

    def __init__(self, name: str = "simulated", *, ttft_s: float = 0.05, gap_s: float = 0.02) -> None:
        self.name = name
        self._ttft_s, self._gap_s = ttft_s, gap_s

    def find(self) -> Found:
        return Found(Path(sys.executable), "simulated")

    def launch(self, found: Found, setup: Setup, port: int, folder: Path) -> Launch:
        argv = (
            *(str(found.program), "-m", simulated_server.__name__, "--port", str(port), "--model", setup.name),
            *("--ttft", str(self._ttft_s), "--gap", str(self._gap_s), "--slots", str(setup.slots)),
            *setup.flags,
        )
        return Launch(
            argv=argv,
            weights="none",
            steps=(typed(argv, {}),),
            ready_s=_READY_S,
            notes=("A simulation with fixed delays: no model runs.",),
        )

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        return await answers_ok(client, "/health")

    async def prepare(self, client: httpx.AsyncClient, setup: Setup) -> Sequence[str]:
        return ()

    async def settings(self, client: httpx.AsyncClient, setup: Setup) -> Settings:
        return Settings(model=setup.name, slots=setup.slots)

    def body(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
        return fields
