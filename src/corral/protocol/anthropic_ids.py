"""Ids as Anthropic's look: msg_..., toolu_..., req_... Pure."""

from __future__ import annotations

import uuid


def new_id(prefix: str) -> str:
    """`prefix` and 128 random bits."""
    return f"{prefix}_{uuid.uuid4().hex}"
