"""Bodies of /admin. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from corral.protocol.fields import StrictModel, read_fields


class KeyFields(StrictModel):
    """A new key; `expires` is Unix seconds, a span such as 30d, or a date of ISO 8601."""

    name: str
    role: Literal["admin", "user", "viewer"] = "user"
    expires: int | str | None = None
    models: list[str] | None = None
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    max_concurrent: int | None = None
    priority: float = 1.0
    cache_scope: str | None = None


class RotateFields(StrictModel):
    """`grace` is how long the old secret still works: seconds, or a span such as 12h."""

    grace: int | str | None = None


def parse_key(body: Mapping[str, Any]) -> KeyFields:
    """Raises InvalidRequest."""
    return read_fields(KeyFields, body, unsupported={}, harmless=frozenset())


def parse_rotate(body: Mapping[str, Any]) -> RotateFields:
    """Raises InvalidRequest."""
    return read_fields(RotateFields, body, unsupported={}, harmless=frozenset())
