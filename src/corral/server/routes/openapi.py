"""/openapi.json: what this server can be asked."""

from __future__ import annotations

import asyncio
from functools import cache

import msgspec
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route


def openapi_routes() -> list[Route]:
    async def document(_: HTTPRequest) -> Response:
        return Response(await asyncio.to_thread(_document), media_type="application/json")

    return [Route("/openapi.json", document)]


@cache
def _document() -> bytes:
    import corral
    from corral.protocol.openapi import build_document
    from corral.protocol.openapi_routes import OPERATIONS

    return msgspec.json.encode(build_document(OPERATIONS, corral.__version__))
