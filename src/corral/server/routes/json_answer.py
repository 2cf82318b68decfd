"""Answers that may hold millions of numbers: made off the event loop, so that no stream stutters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec
from starlette.responses import Response


async def json_answer(make: Callable[[], object], headers: Mapping[str, str] | None = None) -> Response:
    """The response with what `make` gives, which is called, and encoded, on a thread."""
    body = await asyncio.to_thread(lambda: msgspec.json.encode(make()))
    return Response(body, headers=headers, media_type="application/json")
