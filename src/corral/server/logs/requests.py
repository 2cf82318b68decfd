"""What clients ask, for those who want it in their log: prompts and parameters, cut to a length."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any

import msgspec

from corral.logs import REQUESTS_LOGGER
from corral.request import EmbedRequest, Request
from corral.sampling_params import SamplingParams

logger = logging.getLogger(REQUESTS_LOGGER)

# Ids, and what the server itself adds.
_NOT_ASKED = frozenset(
    {"request_id", "model", "tenant", "weight", "deadline", "cache_salt", "resumed", "context", "at"}
)
_PROMPTS = frozenset({"prompt", "messages", "inputs", "sampling"})
_NAMES = ("engine_id", "model")  # that stay whole


def log_request(request: Request | EmbedRequest) -> None:
    """A line with the prompt and the parameters that are not the defaults."""
    asked = {"engine_id": request.request_id, "model": request.model, **_parameters(request)}
    logger.info("%s asks", request.request_id, extra={"fields": {**asked, "prompt": _prompt(request)}})


class Cut(logging.Filter):
    """Shortens what is too long, and puts it into the message for people.

    Args:
        max_len: characters of a text, or token ids; None is all.
    """

    def __init__(self, max_len: int | None) -> None:
        super().__init__()
        self._max_len = max_len

    def filter(self, record: logging.LogRecord) -> bool:
        fields = getattr(record, "fields", {})
        told = {name: value if name in _NAMES else self._cut(value) for name, value in fields.items()}
        record.fields = told
        parameters = {name: value for name, value in told.items() if name not in {*_NAMES, "prompt"}}
        record.msg = "%s asks %s with %s: %r"
        record.args = (told["engine_id"], told["model"] or "the model", parameters, told["prompt"])
        return True

    def _cut(self, value: Any) -> Any:
        if self._max_len is not None and isinstance(value, str | list) and len(value) > self._max_len:
            return value[: self._max_len]
        return value


def _prompt(request: Request | EmbedRequest) -> str | list[int]:
    if isinstance(request, EmbedRequest):
        return _text(request.inputs)
    if request.messages is not None:
        return _text(request.messages)
    return request.prompt if request.prompt is not None else ""


def _parameters(request: Request | EmbedRequest) -> dict[str, Any]:
    given = _given(request, _NOT_ASKED | _PROMPTS)
    if isinstance(request, Request):
        given |= _given(request.sampling, frozenset())
    return given


def _given(asked: Request | EmbedRequest | SamplingParams, left_out: frozenset[str]) -> dict[str, Any]:
    """The fields that differ from what they are by default, as plain values or as JSON."""
    default = type(asked)() if isinstance(asked, SamplingParams) else type(asked)("", **_needed(asked))
    told = {}
    for each in fields(asked):
        value = getattr(asked, each.name)
        if each.name not in left_out and value != getattr(default, each.name):
            told[each.name] = value if isinstance(value, str | int | float) else _text(value)
    return told


def _needed(asked: Request | EmbedRequest) -> dict[str, Any]:
    return {"model": "", "inputs": []} if isinstance(asked, EmbedRequest) else {}


def _text(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
