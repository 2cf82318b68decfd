"""Ids as OpenAI's and Anthropic's look: resp_..., call_..., msg_..., toolu_... Pure."""

from __future__ import annotations

import uuid


def new_id(prefix: str) -> str:
    """`prefix` and 128 random bits."""
    return f"{prefix}_{uuid.uuid4().hex}"
