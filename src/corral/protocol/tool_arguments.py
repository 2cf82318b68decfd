"""The arguments of a whole tool call, for protocols that tell them as an object. Pure."""

from __future__ import annotations

from typing import Any

import msgspec


def read_arguments(text: str) -> dict[str, Any] | None:
    """The JSON object, empty where there is no text; None where it is none: what a model writes may be anything."""
    try:
        value = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None
