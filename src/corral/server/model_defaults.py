"""What a Modelfile adds to a request of any protocol: the client's own words come first, then the Modelfile's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from corral.errors import UnsupportedModel
from corral.protocol.ollama.options import check_options, context_of, sampling_fields
from corral.request import Request
from corral.store.local_model import LocalModel


def apply(local: LocalModel, request: Request) -> Request:
    """The request with the Modelfile's SYSTEM, MESSAGEs, TEMPLATE, ADAPTER and num_ctx where it has none of its own.

    Raises:
        UnsupportedModel: the model has more adapters than can be applied.
        InvalidRequest: one of its parameters has the wrong type.
    """
    if len(local.adapters) > 1:
        raise UnsupportedModel(f"{local.name} has {len(local.adapters)} adapters; only one adapter is supported")
    return replace(
        request,
        messages=None if request.messages is None else _with_modelfile(local, request),
        template=request.template or (local.template if request.messages is not None else None),
        adapter=str(local.adapters[0]) if local.adapters else request.adapter,
        max_context=request.max_context or context_of(check_options(local.parameters)),
    )


def _with_modelfile(local: LocalModel, request: Request) -> list[dict[str, Any]]:
    messages = list(request.messages or [])
    has_system = bool(messages) and messages[0].get("role") == "system"
    system = [{"role": "system", "content": local.system}] if local.system and not has_system else []
    # An exchange that goes on from its ids holds the Modelfile's messages already.
    earlier = [] if request.context else [dict(message) for message in local.messages]
    return [*system, *earlier, *messages]


def sampling_defaults(local: LocalModel) -> Mapping[str, Any]:
    """The Modelfile's PARAMETERs by SamplingParams' names, for protocols whose bodies use these."""
    return sampling_fields(check_options(local.parameters))


def with_sampling_defaults(local: LocalModel, body: Mapping[str, Any]) -> dict[str, Any]:
    """A body of OpenAI's protocol with the PARAMETERs laid under the client's own; null is no value."""
    given = {name: value for name, value in body.items() if value is not None}
    defaults = {name: value for name, value in sampling_defaults(local).items() if name in _OPENAI_NAMES}
    if "max_completion_tokens" in given:
        defaults.pop("max_tokens", None)
    if "stop" in defaults:
        defaults["stop"] = list(defaults["stop"])
    return {**{name: value for name, value in defaults.items() if value is not None}, **given}


_OPENAI_NAMES = frozenset(
    {
        *("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
        *("seed", "stop", "max_tokens"),
    }
)
