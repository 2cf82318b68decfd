"""Anthropic's routes: messages, count_tokens, and the list of models for those who ask in Anthropic's words."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from corral.errors import ContextLengthExceeded, ModelNotFound
from corral.protocol.anthropic.answer import MessageCollector
from corral.protocol.anthropic.messages import MessagesCall, parse_count, parse_create
from corral.protocol.anthropic.models import encode_model, encode_page
from corral.protocol.anthropic.stream import MessageStream
from corral.server.answering import answer_stream, find_model
from corral.server.caller import caller_of
from corral.server.exchange import exchange_of
from corral.server.fan_out import fan_out
from corral.server.ignored import ignored_fields, ignored_headers
from corral.server.limits import read_json
from corral.server.model_defaults import apply, sampling_defaults
from corral.server.model_details import details_of
from corral.server.model_manager import ModelManager
from corral.server.model_names import check_permission
from corral.server.replies import MESSAGES, MODELS, is_anthropic
from corral.server.routes.json_answer import json_response
from corral.server.routes.openai import model_card, model_cards
from corral.server.streaming import unless_disconnected
from corral.store.local_model import LocalModel

Headers = dict[str, str]


def anthropic_routes(manager: ModelManager) -> list[Route]:
    """/v1/messages and below, and /v1/models for requests with Anthropic's version in their head."""

    async def messages(http: HTTPRequest) -> Response:
        body = await read_json(http)
        found, ignored = find_model(manager, body), ignored_fields(http)
        call = parse_create(body, sampling_defaults(found) if found else {}, ignored)
        local = found or _lookup(manager, call.request.model)
        call = await _for_model(call, local)
        headers = _headers(call, ignored)
        try:
            return await _answer(http, manager, local, call, headers)
        except ContextLengthExceeded as error:
            if error.param != "max_tokens":
                raise
        # The prompt fits: as with Anthropic's newer models, the answer may take what is left.
        return await _answer(http, manager, local, call.clamped(), headers)

    async def count_tokens(http: HTTPRequest) -> Response:
        body = await read_json(http)
        found, ignored = find_model(manager, body), ignored_fields(http)
        call = parse_count(body, ignored)
        local = found or _lookup(manager, call.request.model)
        call = await _for_model(call, local)

        async def count() -> int:
            async with manager.lease(local, exchange_of(http.scope)) as model:
                return len((await model.render(call.request)).token_ids)

        num_tokens = await unless_disconnected(http.receive, count())
        return json_response({"input_tokens": num_tokens}, _headers(call, ignored))

    async def list_models(http: HTTPRequest) -> Response:
        return json_response(encode_page(await model_cards(manager, caller_of(http.scope)), http.query_params))

    async def show_model(http: HTTPRequest) -> Response:
        name = http.path_params["name"]
        local = check_permission(caller_of(http.scope), manager.lookup(name), name)
        return json_response(encode_model(model_card(manager, local)))

    return [
        Route(MESSAGES, messages, methods=["POST"]),
        Route(f"{MESSAGES}/count_tokens", count_tokens, methods=["POST"]),
        _AnthropicRoute(MODELS, list_models),
        _AnthropicRoute(f"{MODELS}/{{name:path}}", show_model),
    ]


class _AnthropicRoute(Route):
    """One whose path is OpenAI's too."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if scope["type"] == "http" and is_anthropic(scope) else (Match.NONE, {})


async def _for_model(call: MessagesCall, local: LocalModel) -> MessagesCall:
    """The call with what the model's file and Modelfile add to it, and without what it cannot do."""
    if call.request.think:
        details = await asyncio.to_thread(details_of, local)
        if "thinking" not in details.capabilities:
            call = call.without_thinking()
    return replace(call, request=apply(local, call.request))


async def _answer(
    http: HTTPRequest, manager: ModelManager, local: LocalModel, call: MessagesCall, headers: Headers
) -> Response:
    if call.stream:
        encoder = MessageStream(call, local.name)
        return await answer_stream(http, manager, local, [call.request], encoder, headers)

    async def collect() -> dict[str, Any]:
        collector = MessageCollector(call)
        async with (
            manager.lease(local, exchange_of(http.scope)) as model,
            aclosing(fan_out(model, [call.request])) as outputs,
        ):
            async for _, output in outputs:
                collector.add(output)
        return collector.whole(local.name)

    return json_response(await unless_disconnected(http.receive, collect()), headers)


def _lookup(manager: ModelManager, name: str) -> LocalModel:
    """The model; Anthropic's clients ask for Anthropic's own where they are not told otherwise.

    Raises:
        ModelNotFound: there is none of that name; says what to do.
    """
    try:
        return manager.lookup(name)
    except ModelNotFound as error:
        hint = "GET /v1/models lists those that are here"
        if name.startswith("claude"):
            hint += ", and `corral launch claude --model NAME` starts Claude Code with one of them"
        raise ModelNotFound(f"{error}; {hint}") from None


def _headers(call: MessagesCall, ignored: list[str] | None) -> Headers:
    return ignored_headers(call.request.model, [*(ignored or ()), *call.ignored])
