"""What probes ask: does the process live, and shall it be given work? They need no key and tell nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from corral.server.lifecycle import Lifecycle

if TYPE_CHECKING:
    from corral.server.model_manager import ModelManager

UNAVAILABLE = 503


def health_routes(manager: ModelManager, lifecycle: Lifecycle) -> list[Route]:
    """/livez is 200 while the process answers at all: whoever restarts the server for its health asks there.

    /health, which routers ask, is 503 from the signal on that ends the server, so that they go elsewhere while the
    answers in flight finish. /ready is that, and 503 while a worker has been at one step for too long.
    """

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def health(_: Request) -> Response:
        return _reply("draining" if lifecycle.is_draining else "ok")

    async def ready(_: Request) -> Response:
        return _reply("draining" if lifecycle.is_draining else "stalled" if manager.stalled() else "ok")

    return [
        Route("/health", health),
        Route("/livez", live),
        *(Route(path, ready) for path in ("/ready", "/readyz")),
    ]


def _reply(status: str) -> Response:
    return JSONResponse({"status": status}, 200 if status == "ok" else UNAVAILABLE)
