"""vLLM's /score and the /rerank of Jina, Cohere and vLLM: how near texts are, by their embeddings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_TEXTS
from corral.protocol.fields import StrictModel, read_fields, show_value
from corral.protocol.openai.embeddings import embed_request, encode_embed_usage
from corral.protocol.token_inputs import read_truncation
from corral.request import EmbedRequest, EmbedResult, new_request_id

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "activation": (None, False),
    "chat_template_kwargs": (None, {}),
    "instruction": (None, ""),
    "max_chunks_per_doc": (None,),
    "mm_processor_kwargs": (None, {}),
    "priority": (None, 0),
    "rank_fields": (None, []),
    "rid": (None,),  # this one and top_k are written by vllm-router
    "softmax": (None, False),
    "top_k": (None,),
    "use_activation": (None, False),
}
HARMLESS = frozenset({"user"})
# Every name that the two sides have had.
_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


class ScoreFields(StrictModel):
    model: str
    text_1: Any = None
    text_2: Any = None
    queries: Any = None
    documents: Any = None
    items: Any = None
    data_1: Any = None
    data_2: Any = None
    truncate_prompt_tokens: int | None = None


class RerankFields(StrictModel):
    model: str
    query: Any
    documents: list[Any]
    top_n: int | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = None
    truncate_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PairsCall:
    """Queries and the texts they are compared with: one query with all, or each with its own."""

    model: str
    queries: list[str]
    documents: list[str]
    truncate: bool
    max_tokens: int | None

    def requests(self, num_ctx: int | None) -> tuple[EmbedRequest, EmbedRequest]:
        """Of the queries and of the documents; `num_ctx` as EmbeddingCall.request takes it."""
        queries, documents = (
            embed_request(self.model, cast("list[str | list[int]]", texts), num_ctx, self.truncate, self.max_tokens)
            for texts in (self.queries, self.documents)
        )
        return queries, documents


@dataclass(frozen=True, slots=True)
class RerankCall(PairsCall):
    top_n: int
    with_documents: bool


def parse_score(body: Mapping[str, Any], ignored: list[str] | None = None) -> PairsCall:
    """Reads a body of /score.

    Args:
        ignored: gets the paths of unknown fields; None refuses them.

    Raises:
        InvalidRequest: names the field at fault.
    """
    fields = read_fields(ScoreFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS, ignored=ignored)
    given = {name for pair in _PAIRS for name in pair if getattr(fields, name) is not None}
    found = next((pair for pair in _PAIRS if given == set(pair)), None)
    if found is None:
        names = ", or ".join(f"{first} and {second}" for first, second in _PAIRS)
        shown = " and ".join(sorted(given)) or "none of them"
        raise InvalidRequest(f"a score needs two sides: {names}; {shown} was given", param="text_1")
    first, second = (_read_texts(name, getattr(fields, name)) for name in found)
    if len(first) not in (1, len(second)):
        message = f"{found[0]} has {len(first)} texts and {found[1]} has {len(second)}; give one, or as many"
        raise InvalidRequest(message, param=found[0])
    truncate, max_tokens = read_truncation("truncate_prompt_tokens", fields.truncate_prompt_tokens)
    return PairsCall(fields.model, first, second, truncate, max_tokens)


def parse_rerank(body: Mapping[str, Any], ignored: list[str] | None = None) -> RerankCall:
    """Reads a body of /rerank, as parse_score does."""
    fields = read_fields(RerankFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS, ignored=ignored)
    documents = _read_texts("documents", fields.documents)
    top_n = len(documents) if fields.top_n is None else fields.top_n
    if top_n < 0:
        raise InvalidRequest(f"top_n is {show_value(top_n)}; it must not be below 0", param="top_n")
    names = ("max_tokens_per_doc", "truncate_prompt_tokens")
    given = [name for name in names if getattr(fields, name) is not None]
    if len(given) > 1:
        raise InvalidRequest(f"give {given[0]} or {given[1]}, not both", param=given[0])
    truncate, max_tokens = read_truncation(given[0], getattr(fields, given[0])) if given else (False, None)
    return RerankCall(
        model=fields.model,
        queries=[_read_text("query", fields.query)],
        documents=documents,
        truncate=truncate,
        max_tokens=max_tokens,
        top_n=top_n or len(documents),  # 0 is vLLM's word for all
        with_documents=fields.return_documents is not False,
    )


def _read_texts(where: str, value: object) -> list[str]:
    if not isinstance(value, list):
        return [_read_text(where, value)]
    if not 1 <= len(value) <= MAX_TEXTS:
        raise LimitExceeded(where, len(value), MAX_TEXTS, "texts", least=1)
    return [_read_text(f"{where}[{i}]", entry) for i, entry in enumerate(value)]


def _read_text(where: str, value: object) -> str:
    """A text, or the object {"text": ...} that Jina and Cohere know."""
    text = value.get("text") if isinstance(value, dict) and len(value) == 1 else value
    if isinstance(text, str):
        return text
    message = f'{where} is {show_value(value)}; it must be a string or {{"text": string}}'
    raise InvalidRequest(message, param=where, code="invalid_type")


def cosines(queries: EmbedResult, documents: EmbedResult) -> list[float]:
    """How near each document is to its query, or to the only one: from -1 to 1. The vectors have length 1."""
    import numpy as np

    left, right = (
        np.frombuffer(b"".join(result.embeddings), "<f4").reshape(len(result.embeddings), -1).astype(np.float64)
        for result in (queries, documents)
    )
    found: list[float] = np.clip((left * right).sum(axis=1), -1.0, 1.0).tolist()
    return found


def encode_scores(scores: list[float], num_tokens: int, model: str, created: int) -> dict[str, Any]:
    """The answer of /score."""
    return {
        "id": new_request_id("score"),
        "object": "list",
        "created": created,
        "model": model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": encode_embed_usage(num_tokens),
    }


def encode_ranking(call: RerankCall, scores: list[float], num_tokens: int, model: str) -> dict[str, Any]:
    """The answer of /rerank: the nearest first, equals in the order that they came in."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: call.top_n]
    results: list[dict[str, Any]] = []
    for index in order:
        document = {"document": {"text": call.documents[index]}} if call.with_documents else {}
        results.append({"index": index, "relevance_score": scores[index], **document})
    return {
        "id": new_request_id("rerank"),
        "model": model,
        "results": results,
        "usage": encode_embed_usage(num_tokens),
    }
