"""Routes that only look at prompts: tokenize, detokenize, render; and which version this is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.errors import InvalidRequest
from corral.protocol.openai.chat import parse_chat
from corral.protocol.openai.completions import parse_completion
from corral.protocol.tokenizing import encode_rendered, encode_tokens, parse_detokenize, parse_tokenize
from corral.request import Detokenized, DetokenizeRequest, RenderedPrompt, Request, new_request_id
from corral.server.answering import find_model
from corral.server.caller import Caller, caller_of
from corral.server.exchange import Exchange, exchange_of
from corral.server.ignored import ignored_fields, ignored_headers
from corral.server.limits import read_json
from corral.server.model_defaults import apply, with_sampling_defaults
from corral.server.routes.json_answer import json_answer
from corral.server.streaming import unless_disconnected
from corral.store.local_model import LocalModel

if TYPE_CHECKING:
    from corral.server.model_manager import ModelManager
from corral.server.model_names import may_use


def tokenizing_routes(manager: ModelManager) -> list[Route]:
    """What vLLM has of these, under its paths. Texts become tokens in the worker, never on this event loop."""

    async def tokenize(http: HTTPRequest) -> Response:
        body = await _with_model(manager, await read_json(http), caller_of(http.scope))
        ignored = ignored_fields(http)
        call = parse_tokenize(body, ignored)
        local = await asyncio.to_thread(manager.lookup, call.request.model)
        request = apply(local, call.request)

        async def ask() -> tuple[RenderedPrompt, Detokenized | None, int]:
            async with manager.lease(local, exchange_of(http.scope)) as model:
                rendered = await model.render(request)
                wanted = DetokenizeRequest(new_request_id("detok"), local.name, rendered.token_ids)
                texts = await model.detokenize(wanted) if call.with_texts else None
                return rendered, texts, (await model.info()).max_model_len

        rendered, texts, max_model_len = await unless_disconnected(http.receive, ask())
        return await json_answer(
            lambda: encode_tokens(rendered, texts, max_model_len), ignored_headers(local.name, ignored)
        )

    async def detokenize(http: HTTPRequest) -> Response:
        body = await _with_model(manager, await read_json(http), caller_of(http.scope))
        ignored = ignored_fields(http)
        wanted = await asyncio.to_thread(parse_detokenize, body, ignored)  # millions of ids, maybe
        local = await asyncio.to_thread(manager.lookup, wanted.model)

        async def ask() -> Detokenized:
            async with manager.lease(local, exchange_of(http.scope)) as model:
                return await model.detokenize(wanted)

        found = await unless_disconnected(http.receive, ask())
        return await json_answer(lambda: {"prompt": found.text}, ignored_headers(local.name, ignored))

    async def render_chat(http: HTTPRequest) -> Response:
        body = await read_json(http)
        local = await asyncio.to_thread(find_model, manager, body)
        ignored = ignored_fields(http)
        call = parse_chat(with_sampling_defaults(local, body) if local else body, ignored)
        local = local or manager.lookup(call.request.model)
        request = apply(local, call.request)
        [rendered] = await unless_disconnected(
            http.receive, _render(manager, local, [request], exchange_of(http.scope))
        )
        return await json_answer(
            lambda: encode_rendered(request, rendered, local.name), ignored_headers(local.name, ignored)
        )

    async def render_completions(http: HTTPRequest) -> Response:
        body = await read_json(http)
        local = await asyncio.to_thread(find_model, manager, body)
        ignored = ignored_fields(http)
        call = parse_completion(with_sampling_defaults(local, body) if local else body, ignored)
        local = local or manager.lookup(call.requests[0].model)
        requests = [apply(local, request) for request in call.requests]
        found = await unless_disconnected(http.receive, _render(manager, local, requests, exchange_of(http.scope)))
        return await json_answer(
            lambda: [encode_rendered(*pair, local.name) for pair in zip(requests, found, strict=True)],
            ignored_headers(local.name, ignored),
        )

    async def version(_: HTTPRequest) -> Response:
        import corral

        return await json_answer(lambda: {"version": corral.__version__})

    return [
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
        Route("/v1/chat/completions/render", render_chat, methods=["POST"]),
        Route("/v1/completions/render", render_completions, methods=["POST"]),
        Route("/version", version),
    ]


async def _render(
    manager: ModelManager, local: LocalModel, requests: list[Request], exchange: Exchange
) -> list[RenderedPrompt]:
    async with manager.lease(local, exchange) as model:
        return [await model.render(request) for request in requests]


async def _with_model(manager: ModelManager, body: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """The body with the name of its model, which may be left out where only one is served.

    Raises:
        InvalidRequest: it is left out, and there are several or none.
    """
    if body.get("model") is not None:
        return dict(body)
    served = await asyncio.to_thread(lambda: [local for local in manager.served_names if may_use(caller, local)])
    if len(served) != 1:
        message = f"model is required; {len(served)} models are served here"
        raise InvalidRequest(message, param="model", code="missing_required_parameter")
    return {**body, "model": served[0].name}
