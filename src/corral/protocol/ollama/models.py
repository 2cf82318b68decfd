"""What Ollama's API tells of models: /api/tags, /api/ps, /api/show, /api/version. Pure."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from corral.protocol.ollama.answer import NS_PER_S, rfc3339

# The version of Ollama whose API this is: with logprobs (0.12.11), before OpenAI's Responses (0.13.3).
API_VERSION = "0.13.0"
FOR_EVER = "9999-12-31T23:59:59Z"  # when a model leaves that stays
_KEY_WIDTH = 30

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Details:
    """The figures of a model's file; sizes in tokens and numbers."""

    parent_model: str = ""
    format: str = "gguf"
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int = 0
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ()

    def payload(self) -> dict[str, Any]:
        """The six fields that /api/show and /api/ps have."""
        return {
            "parent_model": self.parent_model,
            "format": self.format,
            "family": self.family,
            "families": list(self.families),
            "parameter_size": self.parameter_size,
            "quantization_level": self.quantization_level,
        }


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A line of /api/tags. `size` in bytes, `digest` hex without its algorithm."""

    name: str
    modified_at: datetime.datetime
    size: int
    digest: str
    details: Details

    def payload(self) -> dict[str, Any]:
        details = self.details.payload()
        if self.details.context_length:
            details["context_length"] = self.details.context_length
        if self.details.embedding_length:
            details["embedding_length"] = self.details.embedding_length
        return {
            "name": self.name,
            "model": self.name,
            "modified_at": encode_time(self.modified_at),
            "size": self.size,
            "digest": self.digest,
            "details": details,
            "capabilities": list(self.details.capabilities),
        }


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A line of /api/ps. Bytes are measured; `expires_at` None is never. The fields from `state` on are Corral's."""

    name: str
    digest: str
    details: Details
    size: int
    context_length: int
    expires_at: datetime.datetime | None
    state: str = "ready"
    weights_bytes: int = 0
    kv_used_bytes: int = 0
    kv_limit_bytes: int = 0
    num_running: int = 0
    num_waiting: int = 0

    def payload(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": self.name,
            "size": self.size,
            "digest": self.digest,
            "details": self.details.payload(),
            "expires_at": FOR_EVER if self.expires_at is None else encode_time(self.expires_at),
            "size_vram": 0,  # no part of it is on a graphics card
            "context_length": self.context_length,
            "state": self.state,
            "weights_bytes": self.weights_bytes,
            "kv_used_bytes": self.kv_used_bytes,
            "kv_limit_bytes": self.kv_limit_bytes,
            "num_running": self.num_running,
            "num_waiting": self.num_waiting,
        }


@dataclass(frozen=True, slots=True)
class ShownModel:
    """What /api/show tells. `template` may be Go's or Jinja's; `model_info` is the file's metadata."""

    license: str
    modelfile: str
    parameters: Mapping[str, Any]
    template: str
    system: str
    messages: tuple[Mapping[str, str], ...]
    details: Details
    model_info: Mapping[str, Any]
    tensors: list[dict[str, Any]]
    modified_at: datetime.datetime

    def payload(self) -> dict[str, Any]:
        optional: dict[str, Any] = {
            "license": self.license,
            "modelfile": self.modelfile,
            "parameters": format_parameters(self.parameters),
            "template": self.template,
            "system": self.system,
            "messages": [dict(message) for message in self.messages],
            "tensors": self.tensors,
        }
        return {
            **{name: value for name, value in optional.items() if value},
            "details": self.details.payload(),
            "model_info": dict(self.model_info),  # clients need the key, empty or not
            "capabilities": list(self.details.capabilities),
            "modified_at": encode_time(self.modified_at),
        }


def format_parameters(parameters: Mapping[str, Any]) -> str:
    """A line for each value, its name padded; texts in quotes."""
    lines = []
    for name, value in parameters.items():
        values = value if isinstance(value, list | tuple) else [value]
        lines += [f"{name:<{_KEY_WIDTH}} {_show(item)}" for item in values]
    return "\n".join(lines)


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.12g}"
    return json.dumps(value, ensure_ascii=False)


def encode_list(models: Iterable[ListedModel | LoadedModel]) -> dict[str, Any]:
    return {"models": [model.payload() for model in models]}


def encode_version(corral_version: str) -> dict[str, str]:
    """Ollama's version for clients that look for features; Corral's own beside it."""
    return {"version": API_VERSION, "corral": corral_version}


def encode_time(moment: datetime.datetime) -> str:
    micros = (moment - _EPOCH) // datetime.timedelta(microseconds=1)
    return rfc3339(micros * (NS_PER_S // 1_000_000))
