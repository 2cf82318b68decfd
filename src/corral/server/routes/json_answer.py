"""Answers in JSON: small ones, and those of millions of numbers, which no stream may stutter for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec
from starlette.responses import Response


def json_response(payload: object, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    return Response(msgspec.json.encode(payload), status, headers, media_type="application/json")


async def json_answer(make: Callable[[], object], headers: Mapping[str, str] | None = None) -> Response:
    """The response with what `make` gives, which is called, and encoded, on a thread."""
    return await asyncio.to_thread(lambda: json_response(make(), headers))
