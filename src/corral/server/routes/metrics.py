"""What Prometheus scrapes, and what routers ask to spread their load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.server.lifecycle import Lifecycle
from corral.server.metrics.books import Books
from corral.server.metrics.state import ServerState
from corral.server.model_manager import ModelManager
from corral.server.routes.json_answer import json_response

LOOK_TIMEOUT_S = 1.0  # for the workers to tell their figures; the last known ones are told then
TEXT = "text/plain; version=0.0.4; charset=utf-8"
FRESH_S = 0.5  # within which several who scrape share one look


@dataclass(eq=False)
class _Looks:
    """When the models' figures were brought up to date, and by whom."""

    at: float = float("-inf")
    running: asyncio.Future[None] | None = None


def metrics_routes(
    manager: ModelManager, lifecycle: Lifecycle, books: Books, num_connections: Callable[[], int]
) -> list[Route]:
    """/metrics as Prometheus has it, /load as vLLM has it."""
    looks = _Looks()

    def state() -> ServerState:
        return ServerState(
            manager.running(),
            manager.num_pending,
            lifecycle.num_in_flight,
            num_connections(),
            lifecycle.is_draining,
            lifecycle.is_loading,
            looks.at,
        )

    async def look() -> None:
        """A worker that is stuck holds up nobody: the look goes on beside, and is not begun twice."""
        if time.monotonic() - looks.at < FRESH_S:
            return
        if looks.running is None:
            looks.running = asyncio.ensure_future(manager.refresh())
        done, _ = await asyncio.wait({looks.running}, timeout=LOOK_TIMEOUT_S)
        if done:
            looks.running, looks.at = None, time.monotonic()

    async def metrics(_: HTTPRequest) -> Response:
        await look()
        # The library takes a while to import, and the text to be made, so others are answered meanwhile.
        return Response(await asyncio.to_thread(_encode, books, state()), headers={"Content-Type": TEXT})

    async def load(_: HTTPRequest) -> Response:
        num_served = sum(model.num_leases for model in manager.running())
        return json_response({"server_load": num_served + manager.num_pending})

    return [Route("/metrics", metrics), Route("/load", load)]


def _encode(books: Books, state: ServerState) -> bytes:
    """Prometheus' text. Not OpenMetrics': there the library writes the colons of vLLM's names as underscores."""
    from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest

    from corral.server.metrics.collector import ServerCollector

    registry = CollectorRegistry(auto_describe=False)  # a process may have several servers, as tests do
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(ServerCollector(books, state))
    return generate_latest(registry)
