"""Ollama's routes that ask a model: generate, chat, embed; and what is loaded."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request as HTTPRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from corral.errors import InvalidModelName, InvalidRequest, ModelNotFound, PermissionDenied
from corral.protocol.ollama.answer import encode_empty
from corral.protocol.ollama.chat import ChatCall, parse_chat
from corral.protocol.ollama.embed import EmbedCall, encode_embed, encode_embeddings, parse_embed, parse_embeddings
from corral.protocol.ollama.fields import shorten
from corral.protocol.ollama.generate import GenerateCall, parse_generate
from corral.protocol.ollama.models import LoadedModel, encode_list, encode_version
from corral.request import EmbedResult
from corral.server.caller import Role, caller_of
from corral.server.exchange import Exchange, exchange_of
from corral.server.ignored import ignored_headers
from corral.server.limits import read_any_json
from corral.server.model_details import details_of, digest_of, tagged
from corral.server.model_names import check_permission, may_use
from corral.server.routes.ollama_answering import Answering, Stopwatch
from corral.server.streaming import LineStream, unless_disconnected
from corral.store.local_model import LocalModel

if TYPE_CHECKING:
    from corral.server.model_manager import ModelManager
    from corral.server.served_model import RunningModel

RUNNING_TEXT = "Ollama is running"  # the very words that clients look for


def ollama_routes(manager: ModelManager) -> list[Route]:
    """/, /api/version and those below /api that need a model."""

    async def root(_: HTTPRequest) -> Response:
        return PlainTextResponse(RUNNING_TEXT)

    async def version(_: HTTPRequest) -> Response:
        import corral

        return json_response(encode_version(corral.__version__))

    async def generate(http: HTTPRequest) -> Response:
        watch = Stopwatch()
        call = parse_generate(await read_any_json(http))
        return await _answer(http, call, await _find_to_generate(manager, call.model), watch)

    async def chat(http: HTTPRequest) -> Response:
        watch = Stopwatch()
        call = parse_chat(await read_any_json(http))
        return await _answer(http, call, await _find_to_chat(manager, call.model), watch)

    async def _answer(
        http: HTTPRequest, call: GenerateCall | ChatCall, local: LocalModel, watch: Stopwatch
    ) -> Response:
        exchange = exchange_of(http.scope)
        check_permission(exchange.caller, local, call.model)
        is_admin = exchange.caller.role.includes(Role.ADMIN)
        ignored = call.ignored if is_admin or call.keep_alive is None else [*call.ignored, "keep_alive"]
        headers = ignored_headers(call.model, ignored)
        exchange.management = "model.unload" if call.is_unload else "model.load" if call.is_empty else ""
        if call.is_unload:
            exchange.model = local.name
            if not is_admin:
                raise PermissionDenied(f"the API key's role is {exchange.caller.role}; to unload a model needs admin")
            await manager.unload(local)
            return json_response(encode_empty(call, watch.now_ns()), headers)
        answering = Answering(manager, local, call, watch, exchange)
        if call.is_empty:
            await unless_disconnected(http.receive, answering.load())
            return json_response(encode_empty(call, watch.now_ns()), headers)
        if call.is_debug:
            return json_response(await unless_disconnected(http.receive, answering.render()), headers)
        if not call.stream:
            return json_response(await unless_disconnected(http.receive, answering.whole()), headers)
        held = AsyncExitStack()
        try:
            lines, told = await unless_disconnected(http.receive, answering.stream(held))
        except BaseException:
            await held.aclose()
            raise
        return LineStream(lines, held=held, headers={**headers, **told})

    async def embed(http: HTTPRequest) -> Response:
        watch = Stopwatch()
        call = parse_embed(await read_any_json(http))
        result = await unless_disconnected(http.receive, _embed(manager, call, watch, exchange_of(http.scope)))
        total_ns, load_ns = watch.elapsed_ns(), watch.load_ns
        payload = await asyncio.to_thread(encode_embed, call, result, total_ns, load_ns)
        return json_response(payload, ignored_headers(call.model, call.ignored))

    async def embeddings(http: HTTPRequest) -> Response:
        call = parse_embeddings(await read_any_json(http))
        result = await unless_disconnected(http.receive, _embed(manager, call, Stopwatch(), exchange_of(http.scope)))
        return json_response(encode_embeddings(result), ignored_headers(call.model, call.ignored))

    async def running(http: HTTPRequest) -> Response:
        await manager.refresh()
        models = [model for model in manager.running() if may_use(caller_of(http.scope), model.local)]
        loaded = await asyncio.to_thread(lambda: [_loaded(model) for model in models])
        return json_response(encode_list(loaded))

    return [
        Route("/", root),
        Route("/api/version", version),
        Route("/api/generate", generate, methods=["POST"]),
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/embed", embed, methods=["POST"]),
        Route("/api/embeddings", embeddings, methods=["POST"]),
        Route("/api/ps", running),
    ]


def json_response(payload: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(payload), headers=headers, media_type="application/json; charset=utf-8")


async def find_model(manager: ModelManager, name: str) -> LocalModel:
    """What the name means; small files are read for it, so on a thread."""
    return await asyncio.to_thread(manager.lookup, name)


async def _find_to_generate(manager: ModelManager, name: str) -> LocalModel:
    try:
        return await find_model(manager, name)
    except InvalidModelName:
        raise ModelNotFound(f"model '{shorten(name)}' not found") from None


async def _find_to_chat(manager: ModelManager, name: str) -> LocalModel:
    try:
        return await find_model(manager, name)
    except InvalidModelName:
        raise InvalidRequest("model is required", param="model") from None


async def _find_to_embed(manager: ModelManager, name: str) -> LocalModel:
    try:
        return await find_model(manager, name)
    except (InvalidModelName, ModelNotFound):
        raise ModelNotFound(f'model "{shorten(name)}" not found, try pulling it first') from None


async def _embed(manager: ModelManager, call: EmbedCall, watch: Stopwatch, exchange: Exchange) -> EmbedResult | None:
    """The vectors; None where there is nothing to embed and the model was only loaded."""
    local = await _find_to_embed(manager, call.model)
    num_ctx = call.num_ctx(local.parameters)
    async with manager.lease(local, exchange, keep_alive=call.keep_alive, num_ctx=num_ctx) as model:
        watch.loaded(model.load_s)
        return await model.embed(call.request(local.parameters)) if call.inputs else None


def _loaded(model: RunningModel) -> LoadedModel:
    return LoadedModel(
        name=tagged(model.local.name),
        digest=digest_of(model.local),
        details=details_of(model.local),
        size=model.memory_bytes,
        context_length=model.info.max_model_len,
        expires_at=model.expires_at,
        state=model.state,
        weights_bytes=model.weights_bytes,
        kv_used_bytes=model.kv_used_bytes,
        kv_limit_bytes=model.kv_limit_bytes,
        num_running=model.stats.num_running,
        num_waiting=model.stats.num_waiting,
    )
