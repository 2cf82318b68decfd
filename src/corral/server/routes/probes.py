"""Whether requests should be sent here, for routers and load balancers; and whether the process lives, for those who
would start it anew.

A router moves away from a server whose probe says 503 while it still serves: so nothing is lost when it stops.
"""

from __future__ import annotations

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.server.lifecycle import LIVE_PATH, READY_PATHS, Lifecycle
from corral.server.model_manager import ModelManager
from corral.server.routes.json_answer import json_response

_OK = {"status": "ok"}


def probe_routes(manager: ModelManager, lifecycle: Lifecycle) -> list[Route]:
    async def ready(_: HTTPRequest) -> Response:
        refusal = _refusal(manager, lifecycle)
        return json_response(_OK if refusal is None else refusal, status=200 if refusal is None else 503)

    async def live(_: HTTPRequest) -> Response:
        return json_response(_OK)  # who can say it, lives

    return [
        *(Route(path, ready, methods=["GET", "POST"] if path == "/ping" else ["GET"]) for path in READY_PATHS),
        Route(LIVE_PATH, live),
    ]


def _refusal(manager: ModelManager, lifecycle: Lifecycle) -> dict[str, str] | None:
    """Why not to send requests here. Names no model: anybody may ask."""
    if lifecycle.is_draining:
        return {"status": "draining", "reason": "the server finishes the answers in flight and then stops"}
    if lifecycle.is_loading:
        return {"status": "loading", "reason": "the models that it is to have from the start are being loaded"}
    if stalled := manager.stalled():
        return {"status": "stalled", "reason": f"{_models(stalled)} work and made no step for too long"}
    if lost := manager.lost():
        return {"status": "lost", "reason": f"{_models(lost)} lost more than one worker in a row, and none now"}
    return None


def _models(names: list[str]) -> str:
    return "1 model has" if len(names) == 1 else f"{len(names)} models have"
