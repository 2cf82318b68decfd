"""OpenAI's /v1/embeddings, with vLLM's extra fields. Pure."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidRequest
from corral.limits import MAX_INPUTS
from corral.protocol.fields import StrictModel, read_fields, show_value
from corral.protocol.token_inputs import MAX_TOKEN_ID, read_inputs, read_truncation
from corral.request import EmbedRequest, EmbedResult, new_request_id

# What vLLM knows besides; the values are those by which it gives what is given here.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (None, True),
    "embed_dtype": (None, "float32"),
    "endianness": (None, "native", "little"),
    "messages": (None,),
    "normalize": (None, True),
    "priority": (None, 0),
    "use_activation": (None, True),
}
HARMLESS = frozenset({"user"})


class EmbeddingFields(StrictModel):
    model: str
    input: Any
    dimensions: int | None = None
    encoding_format: str | None = None
    truncate_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """A parsed call.

    Args:
        max_tokens: an input is cut to so many; None: to the model's context, if `truncate` allows it.
    """

    model: str
    inputs: list[str | list[int]]
    dimensions: int | None
    as_base64: bool
    truncate: bool
    max_tokens: int | None

    def request(self, num_ctx: int | None) -> EmbedRequest:
        """`num_ctx` is the context that the model's owner gave it."""
        return embed_request(self.model, self.inputs, num_ctx, self.truncate, self.max_tokens, self.dimensions)


def embed_request(
    model: str,
    inputs: list[str | list[int]],
    num_ctx: int | None,
    truncate: bool,
    max_tokens: int | None,
    dimensions: int | None = None,
) -> EmbedRequest:
    """The EmbedRequest of inputs, each bounded by the smaller of `num_ctx` and `max_tokens`."""
    bounds = [bound for bound in (num_ctx, max_tokens) if bound is not None]
    return EmbedRequest(
        request_id=new_request_id("embd"),
        model=model,
        inputs=inputs,
        truncate=truncate,
        dimensions=dimensions,
        max_context=min(bounds, default=None),
    )


def parse_embeddings_call(body: Mapping[str, Any], ignored: list[str] | None = None) -> EmbeddingCall:
    """Reads a body.

    Args:
        ignored: gets the paths of unknown fields; None refuses them.

    Raises:
        InvalidRequest: names the field at fault.
    """
    fields = read_fields(EmbeddingFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS, ignored=ignored)
    if fields.encoding_format not in (None, "float", "base64"):
        message = f"encoding_format is {show_value(fields.encoding_format)}; it must be 'float' or 'base64'"
        raise InvalidRequest(message, param="encoding_format", code="invalid_value")
    dimensions = fields.dimensions
    if dimensions is not None and not 1 <= dimensions <= MAX_TOKEN_ID:
        message = f"dimensions is {show_value(dimensions)}; it must be from 1 to the length of the model's vectors"
        raise InvalidRequest(message, param="dimensions", code="invalid_value")
    truncate, max_tokens = read_truncation("truncate_prompt_tokens", fields.truncate_prompt_tokens)
    return EmbeddingCall(
        model=fields.model,
        inputs=read_inputs("input", fields.input, MAX_INPUTS),
        dimensions=dimensions,
        as_base64=fields.encoding_format == "base64",
        truncate=truncate,
        max_tokens=max_tokens,
    )


def encode_embeddings_answer(call: EmbeddingCall, result: EmbedResult, model: str) -> dict[str, Any]:
    """The whole answer."""
    encode = _base64 if call.as_base64 else _floats
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(result.embeddings)
        ],
        "model": model,
        "usage": encode_embed_usage(result.prompt_tokens),
    }


def encode_embed_usage(num_tokens: int) -> dict[str, int]:
    """OpenAI's usage of a call that generates nothing."""
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode("ascii")


def _floats(vector: bytes) -> list[float]:
    """Little-endian f32, as all machines that run Corral have them."""
    return array("f", vector).tolist()
