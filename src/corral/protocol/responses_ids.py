"""Ids as OpenAI's Responses API has them. Pure."""

from __future__ import annotations

import uuid


def new_id(prefix: str) -> str:
    """`prefix` (resp, msg, rs, fc, call, ...) and 128 random bits."""
    return f"{prefix}_{uuid.uuid4().hex}"
