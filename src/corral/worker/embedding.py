"""From an EmbedRequest to token ids and back: checks, truncation, and the vectors as bytes."""

from __future__ import annotations

from collections.abc import Callable

from corral.engine.embedder import EmbeddingResult, EmbeddingSpec
from corral.engine.loop import EngineLoop
from corral.errors import ContextLengthExceeded, CorralError, InvalidRequest
from corral.request import EmbedRequest, EmbedResult, RequestSize
from corral.text.tokenizer import Tokenizer
from corral.worker.info import ModelInfo

MAX_RESULT_BYTES = 128 << 20  # of all vectors of one request: half of what a frame of the worker's protocol may hold

OnResult = Callable[[EmbedResult | CorralError], None]


def submit_embed(
    request: EmbedRequest, on_result: OnResult, engine: EngineLoop, tokenizer: Tokenizer, info: ModelInfo
) -> int:
    """See Pipeline.embed."""
    _check(request, info)
    inputs = [_encode(each, request, tokenizer, info) for each in request.inputs]
    num_tokens = sum(map(len, inputs))

    def on_embedded(result: EmbeddingResult) -> None:
        if isinstance(result, CorralError):
            on_result(result)
        else:
            vectors = [vector.astype("<f4", copy=False).tobytes() for vector in result]
            on_result(EmbedResult(request.request_id, vectors, num_tokens))

    spec = EmbeddingSpec(
        request.request_id,
        inputs,
        request.dimensions,
        tenant=request.tenant,
        weight=request.weight,
        deadline=request.deadline,
    )
    engine.embed(spec, on_embedded)
    return num_tokens


def measure_embed(request: EmbedRequest, tokenizer: Tokenizer, info: ModelInfo) -> RequestSize:
    """See Pipeline.measure."""
    _check(request, info)
    num_tokens = sum(len(_encode(each, request, tokenizer, info)) for each in request.inputs)
    return RequestSize(request.request_id, num_tokens)


def _check(request: EmbedRequest, info: ModelInfo) -> None:
    if not request.inputs:
        raise InvalidRequest("there is no input; at least one is needed", param="input")
    most = MAX_RESULT_BYTES // (4 * info.embedding_length)
    if len(request.inputs) > most:
        raise InvalidRequest(
            f"there are {len(request.inputs)} inputs; a request to this model may have {most}", param="input"
        )
    dimensions = request.dimensions
    if dimensions is not None and not 1 <= dimensions <= info.embedding_length:
        raise InvalidRequest(
            f"dimensions is {dimensions}; it must be from 1 to {info.embedding_length}", param="dimensions"
        )


def _encode(text: str | list[int], request: EmbedRequest, tokenizer: Tokenizer, info: ModelInfo) -> list[int]:
    """The ids of one input, cut to the context if the request allows it."""
    limit = info.max_model_len if request.max_context is None else min(request.max_context, info.max_model_len)
    if isinstance(text, str):
        if not request.truncate and tokenizer.min_num_tokens(text) > limit:
            raise _too_long()
        token_ids = tokenizer.encode(text, add_special=True, parse_special=False) or _of_nothing(tokenizer)
    elif text:
        token_ids = text
    else:
        raise InvalidRequest("an input has no tokens; it needs at least one", param="input")
    if len(token_ids) <= limit:
        return token_ids
    if not request.truncate:
        raise _too_long()
    if limit <= (tokenizer.adds_bos + tokenizer.adds_eos if isinstance(text, str) else 0):
        raise ContextLengthExceeded("input after truncation exceeds maximum context length", param="input")
    if isinstance(text, str) and tokenizer.adds_eos:
        return [*token_ids[: limit - 1], token_ids[-1]]  # what ends a text, [SEP] or EOS, ends a shorter one too
    return token_ids[:limit]


def _of_nothing(tokenizer: Tokenizer) -> list[int]:
    """The ids of an empty text where the file asks for no special tokens: one is needed to compute anything."""
    for token_id in (tokenizer.bos_id, tokenizer.eos_id):
        if token_id is not None:
            return [token_id]
    raise InvalidRequest("an input came to no token at all; at least one is needed", param="input")


def _too_long() -> ContextLengthExceeded:
    return ContextLengthExceeded("the input length exceeds the context length", param="input")
