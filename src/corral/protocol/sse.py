"""Server-sent events: the framing of streamed answers."""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"  # a comment: clients skip it, proxies see a live connection

_encoder = msgspec.json.Encoder()


def encode_event(payload: Any) -> bytes:
    """One `data:` event; JSON holds no raw line break, so one line is always enough."""
    return b"data: " + _encoder.encode(payload) + b"\n\n"


def encode_named_event(name: str, payload: Any) -> bytes:
    """An event with its name in a line of its own, as Anthropic's clients want it."""
    return b"event: " + name.encode() + b"\n" + encode_event(payload)
