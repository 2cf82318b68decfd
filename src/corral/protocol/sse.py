"""Server-sent events: the framing of streamed answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from corral.request import QueuePlace, RequestOutput

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"  # a comment: clients skip it, proxies see a live connection

# What is told of the queue to those who wait in it, in a response's head.
POSITION_HEADER = "X-Corral-Queue-Position"
WAIT_HEADER = "X-Corral-Expected-Wait"

_encoder = msgspec.json.Encoder()


def place_comment(place: QueuePlace) -> bytes:
    """A comment that says where the request waits: how many go before it, and for about how long."""
    wait = "" if place.expected_wait_s is None else f" wait={place.expected_wait_s:g}s"
    return f": queue position={place.position}{wait}\n\n".encode()


def with_place(event: bytes, output: RequestOutput) -> bytes:
    """The output's event, and a comment where it tells of a place in the queue."""
    return event if output.place is None else event + place_comment(output.place)


def place_headers(outputs: Iterable[RequestOutput]) -> dict[str, str]:
    """The headers of a call of whose requests some wait, by the last of them; none if all are served at once."""
    places = [output.place for output in outputs if output.place is not None and not output.deltas]
    if not places:
        return {}
    last = max(places, key=lambda place: place.position)
    headers = {POSITION_HEADER: str(last.position)}
    if last.expected_wait_s is not None:
        headers[WAIT_HEADER] = f"{last.expected_wait_s:g}"
    return headers


def encode_event(payload: Any) -> bytes:
    """One `data:` event; JSON holds no raw line break, so one line is always enough."""
    return b"data: " + _encoder.encode(payload) + b"\n\n"


def encode_named_event(name: str, payload: Any) -> bytes:
    """An event with its name in a line of its own, as Anthropic's clients want it."""
    return b"event: " + name.encode() + b"\n" + encode_event(payload)
