"""OpenAI's /v1/models. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a client may know of a served model."""

    name: str
    created: int  # Unix seconds
    max_model_len: int | None = None  # tokens; known once it is loaded


def encode_model(card: ModelCard) -> dict[str, Any]:
    """OpenAI's card, and what vLLM adds: clients that ask for a context's length look for `max_model_len`."""
    known = {} if card.max_model_len is None else {"max_model_len": card.max_model_len}
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "corral",
        "root": card.name,
        "parent": None,
        **known,
    }


def encode_model_list(cards: Iterable[ModelCard]) -> dict[str, Any]:
    return {"object": "list", "data": [encode_model(card) for card in cards]}
