"""Ollama's /api/embed and the older /api/embeddings. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_INPUTS
from corral.protocol.ollama.duration import parse_keep_alive
from corral.protocol.ollama.fields import Fields
from corral.protocol.ollama.options import check_options, context_of, ignored_options
from corral.request import EmbedRequest, EmbedResult, new_request_id


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """A parsed call; without inputs it only loads the model."""

    model: str
    inputs: tuple[str, ...]
    truncate: bool
    dimensions: int | None
    keep_alive: float | None
    options: dict[str, Any]

    @property
    def ignored(self) -> tuple[str, ...]:
        return ignored_options(self.options)

    def num_ctx(self, parameters: Mapping[str, Any]) -> int | None:
        """The context asked for: the client's, else the Modelfile's."""
        return context_of({**check_options(parameters), **self.options})

    def request(self, parameters: Mapping[str, Any]) -> EmbedRequest:
        """`parameters` are the Modelfile's."""
        return EmbedRequest(
            request_id=new_request_id("embed"),
            model=self.model,
            inputs=list(self.inputs),
            truncate=self.truncate,
            dimensions=self.dimensions,
            # Without the floor that an answer's context has: a text of two tokens is one.
            max_context={**check_options(parameters), **self.options}.get("num_ctx"),
        )


def parse_embed(body: Mapping[str, Any]) -> EmbedCall:
    """Reads a body of /api/embed.

    Raises:
        InvalidRequest: a wrong type or value, in Ollama's words.
    """
    fields = Fields(body, "EmbedRequest")
    dimensions = fields.whole("dimensions") or 0
    if dimensions < 0:
        raise InvalidRequest(f"dimensions is {dimensions}; it must not be below 0", param="dimensions")
    return _call(
        fields,
        _read_input(fields.raw("input")),
        truncate=fields.flag("truncate") is not False,
        dimensions=dimensions or None,
    )


def parse_embeddings(body: Mapping[str, Any]) -> EmbedCall:
    """Reads a body of /api/embeddings; raises as parse_embed."""
    fields = Fields(body, "EmbeddingRequest")
    prompt = fields.text("prompt")
    return _call(fields, (prompt,) if prompt else (), truncate=False, dimensions=None)


def _call(fields: Fields, inputs: tuple[str, ...], *, truncate: bool, dimensions: int | None) -> EmbedCall:
    return EmbedCall(
        model=fields.text("model"),
        inputs=inputs,
        truncate=truncate,
        dimensions=dimensions,
        keep_alive=parse_keep_alive(fields.raw("keep_alive")),
        options=check_options(fields.mapping("options")),
    )


def _read_input(value: object) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    inputs = [value] if isinstance(value, str) else value
    if not isinstance(inputs, list) or not all(isinstance(text, str) for text in inputs):
        raise InvalidRequest("invalid input type", param="input")
    if len(inputs) > MAX_INPUTS:
        raise LimitExceeded("input", len(inputs), MAX_INPUTS, "texts")
    return tuple(inputs)


def encode_embed(call: EmbedCall, result: EmbedResult | None, total_ns: int, load_ns: int) -> dict[str, Any]:
    """The answer of /api/embed; `result` is None where there were no inputs."""
    payload: dict[str, Any] = {
        "model": call.model,
        "embeddings": [] if result is None else [_floats(vector) for vector in result.embeddings],
        "total_duration": total_ns,
        "load_duration": load_ns,
    }
    if result is not None and result.prompt_tokens:
        payload["prompt_eval_count"] = result.prompt_tokens
    return payload


def encode_embeddings(result: EmbedResult | None) -> dict[str, Any]:
    """The answer of /api/embeddings: the one vector."""
    return {"embedding": [] if result is None else _floats(result.embeddings[0])}


def _floats(vector: bytes) -> list[float]:
    """Little-endian f32, as all machines that run Corral have them."""
    return array("f", vector).tolist()
