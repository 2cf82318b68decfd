"""What a user asked for and what comes back: the nouns that cross every seam."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass, field
from typing import Any

from corral.sampling_params import SamplingParams


class FinishReason(enum.StrEnum):
    STOP = "stop"  # an end-of-text token or a stop string
    LENGTH = "length"  # max_tokens or the end of the context
    ABORT = "abort"  # the client went away, or the server gave the request up


@dataclass(frozen=True, slots=True)
class Request:
    """One request, parsed and checked, in no protocol's own words.

    Exactly one of `prompt` (raw text, or token ids) and `messages` (chat, rendered by the model's
    template) is set. `messages` entries are {"role": str, "content": str, ...}.
    """

    request_id: str
    model: str = ""
    prompt: str | list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    cache_salt: str = ""  # requests share prefix blocks only with equal salts


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts; `cached_tokens` of the prompt came from shared blocks."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """What one answer (`index` in [0, n)) gained: whole characters only, stop strings held back."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None  # the stop string or stop token that ended it


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """One step's gain of a request. The last one has `is_finished`; its usage is final."""

    request_id: str
    deltas: tuple[Delta, ...] = ()
    usage: Usage = Usage()
    is_finished: bool = False


def new_request_id(prefix: str) -> str:
    """`prefix` and 128 random bits, as OpenAI's ids look: chatcmpl-..., cmpl-..."""
    return f"{prefix}-{uuid.uuid4().hex}"
