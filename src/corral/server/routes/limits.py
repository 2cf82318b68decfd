"""/limits: how much of everything this server takes."""

from __future__ import annotations

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.server.live_settings import LiveSettings
from corral.server.model_manager import ModelManager
from corral.server.routes.json_answer import json_response


def limits_routes(manager: ModelManager, settings: LiveSettings) -> list[Route]:
    async def show(_: HTTPRequest) -> Response:
        from corral.server.limits_table import limits_table  # rarely asked for

        table = limits_table(manager.engine, settings.config)
        rows = [{"subject": subject, **row.payload()} for subject, rows in table.items() for row in rows]
        return json_response({"object": "list", "data": rows})

    return [Route("/limits", show)]
