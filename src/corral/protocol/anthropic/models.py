"""Anthropic's /v1/models: pages of models. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from corral.errors import InvalidRequest
from corral.protocol.fields import show_value
from corral.protocol.openai.models import ModelCard

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000


def encode_model(card: ModelCard) -> dict[str, Any]:
    created = datetime.datetime.fromtimestamp(card.created, datetime.UTC)
    return {
        "type": "model",
        "id": card.name,
        "display_name": card.name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": card.max_model_len,
        "max_tokens": card.max_model_len,
        "capabilities": None,
    }


def encode_page(cards: Sequence[ModelCard], query: Mapping[str, str]) -> dict[str, Any]:
    """The models that a query asks for: `limit` of them, after or before the one of an id.

    Raises:
        InvalidRequest: names the parameter.
    """
    limit = _limit(query.get("limit", str(DEFAULT_LIMIT)))
    before, after = query.get("before_id"), query.get("after_id")
    if before is not None and after is not None:
        raise InvalidRequest("give before_id or after_id, not both", param="before_id")
    if before is not None:
        found = cards[: _position("before_id", before, cards)]
        page, has_more = found[-limit:], len(found) > limit
    else:
        found = cards if after is None else cards[_position("after_id", after, cards) + 1 :]
        page, has_more = found[:limit], len(found) > limit
    return {
        "data": [encode_model(card) for card in page],
        "has_more": has_more,
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        raise InvalidRequest(f"limit is {show_value(text)}; it must be from 1 to {MAX_LIMIT}", param="limit")
    return int(text)


def _position(param: str, name: str, cards: Sequence[ModelCard]) -> int:
    for position, card in enumerate(cards):
        if card.name == name:
            return position
    raise InvalidRequest(f"{param} is {show_value(name)}; no model has this id", param=param)
