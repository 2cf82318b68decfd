"""Routes over embeddings: OpenAI's embeddings, and the scores and rankings made of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.protocol.ollama.options import check_options
from corral.protocol.openai.embeddings import encode_embeddings_answer, parse_embeddings_call
from corral.protocol.scores import PairsCall, cosines, encode_ranking, encode_scores, parse_rerank, parse_score
from corral.request import EmbedResult
from corral.server.exchange import Exchange, exchange_of
from corral.server.ignored import ignored_fields, ignored_headers
from corral.server.limits import read_json
from corral.server.routes.json_answer import json_answer
from corral.server.streaming import unless_disconnected
from corral.store.local_model import LocalModel

if TYPE_CHECKING:
    from corral.server.model_manager import ModelManager


def embedding_routes(manager: ModelManager) -> list[Route]:
    """/v1/embeddings, and score and rerank under all of their names.

    Bodies are read on threads: they may hold millions of token ids.
    """

    async def embeddings(http: HTTPRequest) -> Response:
        ignored = ignored_fields(http)
        call = await asyncio.to_thread(parse_embeddings_call, await read_json(http), ignored)
        local = await asyncio.to_thread(manager.lookup, call.model)

        async def ask() -> EmbedResult:
            async with manager.lease(local, exchange_of(http.scope)) as model:
                return await model.embed(call.request(_num_ctx(local)))

        result = await unless_disconnected(http.receive, ask())
        return await json_answer(
            lambda: encode_embeddings_answer(call, result, local.name), ignored_headers(call.model, ignored)
        )

    async def score(http: HTTPRequest) -> Response:
        ignored = ignored_fields(http)
        call = await asyncio.to_thread(parse_score, await read_json(http), ignored)
        local = await asyncio.to_thread(manager.lookup, call.model)
        queries, documents = await unless_disconnected(
            http.receive, _embed_pairs(manager, local, call, exchange_of(http.scope))
        )

        def encode() -> dict[str, Any]:
            num_tokens = queries.prompt_tokens + documents.prompt_tokens
            return encode_scores(cosines(queries, documents), num_tokens, local.name, int(time.time()))

        return await json_answer(encode, ignored_headers(call.model, ignored))

    async def rerank(http: HTTPRequest) -> Response:
        ignored = ignored_fields(http)
        call = await asyncio.to_thread(parse_rerank, await read_json(http), ignored)
        local = await asyncio.to_thread(manager.lookup, call.model)
        queries, documents = await unless_disconnected(
            http.receive, _embed_pairs(manager, local, call, exchange_of(http.scope))
        )

        def encode() -> dict[str, Any]:
            num_tokens = queries.prompt_tokens + documents.prompt_tokens
            return encode_ranking(call, cosines(queries, documents), num_tokens, local.name)

        return await json_answer(encode, ignored_headers(call.model, ignored))

    return [
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        *(Route(path, score, methods=["POST"]) for path in ("/v1/score", "/score")),
        *(Route(path, rerank, methods=["POST"]) for path in ("/v1/rerank", "/v2/rerank", "/rerank")),
    ]


async def _embed_pairs(
    manager: ModelManager, local: LocalModel, call: PairsCall, exchange: Exchange
) -> tuple[EmbedResult, EmbedResult]:
    queries, documents = call.requests(_num_ctx(local))
    async with manager.lease(local, exchange) as model:
        # One after the other: if the first is refused, nobody has to give the second up.
        return await model.embed(queries), await model.embed(documents)


def _num_ctx(local: LocalModel) -> int | None:
    """The Modelfile's, without the floor that an answer's context has: a text of two tokens is one."""
    num_ctx: int | None = check_options(local.parameters).get("num_ctx")
    return num_ctx
