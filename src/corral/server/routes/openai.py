"""OpenAI's routes: where the wire format and the workers meet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.protocol.openai_chat import ChatStream, encode_chat_answer, parse_chat
from corral.protocol.openai_completions import CompletionStream, encode_completion_answer, parse_completion
from corral.protocol.openai_models import ModelCard, encode_model, encode_model_list
from corral.server.answering import answer_stream, answer_whole, find_model
from corral.server.limits import read_json
from corral.server.model_defaults import apply, with_sampling_defaults
from corral.server.model_manager import ModelManager
from corral.store.local_model import LocalModel


def openai_routes(manager: ModelManager) -> list[Route]:
    """All below /v1."""

    async def list_models(_: HTTPRequest) -> Response:
        return _json(encode_model_list(await model_cards(manager)))

    async def show_model(http: HTTPRequest) -> Response:
        local = manager.lookup(http.path_params["name"])
        return _json(encode_model(model_card(manager, local)))

    async def chat_completions(http: HTTPRequest) -> Response:
        body = await read_json(http)
        local = find_model(manager, body)
        call = parse_chat(with_sampling_defaults(local, body) if local else body)
        local = local or manager.lookup(call.request.model)
        created = int(time.time())
        request = apply(local, call.request)
        if not call.stream:
            [answer] = await answer_whole(http, manager, local, [request])
            return _json(encode_chat_answer(call, answer, local.name, created))
        return await answer_stream(http, manager, local, [request], ChatStream(call, local.name, created))

    async def completions(http: HTTPRequest) -> Response:
        body = await read_json(http)
        local = find_model(manager, body)
        call = parse_completion(with_sampling_defaults(local, body) if local else body)
        local = local or manager.lookup(call.requests[0].model)
        created = int(time.time())
        requests = [apply(local, request) for request in call.requests]
        if not call.stream:
            answers = await answer_whole(http, manager, local, requests)
            return _json(encode_completion_answer(call, answers, local.name, created))
        return await answer_stream(http, manager, local, requests, CompletionStream(call, local.name, created))

    return [
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", show_model),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
    ]


def _json(payload: object) -> Response:
    return Response(msgspec.json.encode(payload), media_type="application/json")


async def model_cards(manager: ModelManager) -> list[ModelCard]:
    """All that are served; their files are looked at on a thread."""
    lengths = _context_lengths(manager)
    return await asyncio.to_thread(lambda: [_card(local, lengths) for local in manager.served_names])


def model_card(manager: ModelManager, local: LocalModel) -> ModelCard:
    return _card(local, _context_lengths(manager))


def _context_lengths(manager: ModelManager) -> dict[Path, int]:
    """Tokens, of the models that are loaded."""
    return {model.local.path: model.info.max_model_len for model in manager.running() if model.state == "ready"}


def _card(local: LocalModel, context_lengths: Mapping[Path, int]) -> ModelCard:
    return ModelCard(local.name, _modified_at(local.path), context_lengths.get(local.path))


def _modified_at(path: Path) -> int:
    """Unix seconds; 0 for a file that is gone."""
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
