"""Replies of engines, which may be anything: read without a fault, and None where what was looked for is not there."""

from __future__ import annotations

import math
from typing import Any

import httpx

_TIMEOUT_S = 10.0


async def get_json(client: httpx.AsyncClient, path: str) -> Any:
    """None where there is no such route, or no JSON on it."""
    try:
        response = await client.get(path, timeout=_TIMEOUT_S)
        return response.json() if response.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError, RecursionError):
        return None


async def get_text(client: httpx.AsyncClient, path: str) -> str:
    """ "" where there is no such route."""
    try:
        response = await client.get(path, timeout=_TIMEOUT_S)
        return response.text if response.status_code == httpx.codes.OK else ""
    except (httpx.HTTPError, ValueError):
        return ""


async def answers_ok(client: httpx.AsyncClient, path: str) -> bool:
    """Whether it says 200; False too while nobody listens."""
    try:
        return (await client.get(path, timeout=_TIMEOUT_S)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def at(value: Any, *path: str | int) -> Any:
    """What is in there under these keys and indices; None as soon as one is missing."""
    for key in path:
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and -len(value) <= key < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def whole(value: Any) -> int | None:
    """A count, also as a text of digits."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> float | None:
    """Rounded, as JSON of 32-bit numbers has tails."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(float(value), 6)


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def objects(value: Any) -> list[dict[str, Any]]:
    """Those of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
