"""What probes ask: does the process live, and shall it be given work? They need no key, and name no model.

A router moves away from a server whose probe says 503 while it still serves: so nothing is lost when it stops.
"""

from __future__ import annotations

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.server.lifecycle import HEALTH_PATHS, LIVE_PATH, READY_PATHS, Lifecycle
from corral.server.model_manager import ModelManager
from corral.server.routes.json_answer import json_response


def probe_routes(manager: ModelManager, lifecycle: Lifecycle) -> list[Route]:
    """/livez is 200 while the process answers at all: whoever restarts the server for its health asks there.

    /health (/healthz, /ping), which routers ask, is 503 while the first models load, and from the signal on that ends
    the server. /ready (/readyz) is that, and 503 while an engine is stuck or a model that is to be there is lost: the
    server mends both itself, so they are no reason to restart it.
    """

    async def live(_: HTTPRequest) -> Response:
        return _reply(None)

    async def health(_: HTTPRequest) -> Response:
        return _reply(_phase(lifecycle))

    async def ready(_: HTTPRequest) -> Response:
        return _reply(_phase(lifecycle) or _trouble(manager))

    return [
        Route(LIVE_PATH, live),
        *(Route(path, health, methods=["GET", "POST"] if path == "/ping" else ["GET"]) for path in HEALTH_PATHS),
        *(Route(path, ready) for path in READY_PATHS),
    ]


def _reply(refusal: tuple[str, str] | None) -> Response:
    if refusal is None:
        return json_response({"status": "ok"})
    return json_response({"status": refusal[0], "reason": refusal[1]}, status=503)


def _phase(lifecycle: Lifecycle) -> tuple[str, str] | None:
    if lifecycle.is_draining:
        return "draining", "the server finishes the answers in flight and then stops"
    if lifecycle.is_loading:
        return "loading", "the models that it is to have from the start are being loaded"
    return None


def _trouble(manager: ModelManager) -> tuple[str, str] | None:
    if stalled := manager.stalled():
        return "stalled", f"{_models(stalled)} work, and made no step for too long"
    if lost := manager.lost():
        return "lost", f"{_models(lost)} lost several workers in a row, and none now"
    return None


def _models(names: list[str]) -> str:
    return "1 model has" if len(names) == 1 else f"{len(names)} models have"
