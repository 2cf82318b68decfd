"""OpenAI's routes: where the wire format and the workers meet."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral import __version__
from corral.errors import InvalidRequest
from corral.protocol.openai.chat import parse_chat
from corral.protocol.openai.chat_answer import ChatStream, encode_chat_answer
from corral.protocol.openai.completion_answer import CompletionStream, encode_completion_answer
from corral.protocol.openai.completions import CompletionCall, parse_completion
from corral.protocol.openai.models import ModelCard, encode_model, encode_model_list
from corral.request import DetokenizeRequest, Request
from corral.server.answering import answer_stream, answer_whole, find_model
from corral.server.caller import Caller, caller_of
from corral.server.exchange import Exchange, exchange_of
from corral.server.ignored import ignored_fields, ignored_headers
from corral.server.limits import read_json
from corral.server.model_defaults import apply, with_sampling_defaults
from corral.server.model_manager import ModelManager
from corral.server.model_names import check_permission, may_use
from corral.server.routes.json_answer import json_response
from corral.server.streaming import unless_disconnected
from corral.store.local_model import LocalModel


def openai_routes(manager: ModelManager) -> list[Route]:
    """All below /v1."""

    async def list_models(http: HTTPRequest) -> Response:
        return json_response(encode_model_list(await model_cards(manager, caller_of(http.scope))))

    async def show_model(http: HTTPRequest) -> Response:
        name = http.path_params["name"]
        local = check_permission(caller_of(http.scope), manager.lookup(name), name)
        return json_response(encode_model(model_card(manager, local)))

    async def chat_completions(http: HTTPRequest) -> Response:
        body = await read_json(http)
        ignored = ignored_fields(http)
        local = find_model(manager, body)
        call = parse_chat(with_sampling_defaults(local, body) if local else body, ignored)
        local = local or manager.lookup(call.request.model)
        about = (local.name, int(time.time()), _fingerprint(local))
        request = apply(local, call.request)

        async def answer(request: Request, names: Sequence[str]) -> Response:
            headers = ignored_headers(local.name, names)
            if not call.stream:
                [whole] = await answer_whole(http, manager, local, [request])
                return json_response(encode_chat_answer(call, whole, *about), headers)
            return await answer_stream(http, manager, local, [request], ChatStream(call, *about), headers)

        try:
            return await answer(request, ignored or ())
        except InvalidRequest as error:
            if error.param != "think" or not isinstance(request.think, str):
                raise
        # Many clients send an effort with every request, to models that do not think as well; vLLM lets the template
        # leave it unread. Here the answer's header says that it changed nothing.
        return await answer(replace(request, think=None), [*(ignored or ()), "reasoning_effort"])

    async def completions(http: HTTPRequest) -> Response:
        body = await read_json(http)
        ignored = ignored_fields(http)
        local = find_model(manager, body)
        call = parse_completion(with_sampling_defaults(local, body) if local else body, ignored)
        local = local or manager.lookup(call.requests[0].model)
        about = (local.name, int(time.time()), _fingerprint(local))
        requests = [apply(local, request) for request in call.requests]
        headers = ignored_headers(local.name, ignored)
        if call.echo and None in call.echo_texts:
            call = await unless_disconnected(http.receive, _with_texts(manager, local, call, exchange_of(http.scope)))
        if not call.stream:
            answers = await answer_whole(http, manager, local, requests)
            return json_response(encode_completion_answer(call, answers, *about), headers)
        return await answer_stream(http, manager, local, requests, CompletionStream(call, *about), headers)

    return [
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", show_model),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
    ]


async def _with_texts(
    manager: ModelManager, local: LocalModel, call: CompletionCall, exchange: Exchange
) -> CompletionCall:
    """The call with the texts of prompts that are token ids, for their echo."""
    texts = list(call.echo_texts)
    async with manager.lease(local, exchange) as model:
        for index, request in enumerate(call.requests):
            if texts[index] is None and isinstance(request.prompt, list):
                asked = DetokenizeRequest(f"{request.request_id}-echo", local.name, request.prompt)
                try:
                    texts[index] = (await model.detokenize(asked)).text
                except InvalidRequest as error:
                    raise InvalidRequest(error.message.replace("tokens", "prompt", 1), param="prompt") from error
    return replace(call, echo_texts=tuple(texts))


def _fingerprint(local: LocalModel) -> str:
    """The same as long as neither this program nor the model changes."""
    return "fp_" + hashlib.sha256(f"{__version__} {local.digest or local.path}".encode()).hexdigest()[:10]


async def model_cards(manager: ModelManager, caller: Caller) -> list[ModelCard]:
    """All that the caller may use; their files are looked at on a thread."""
    lengths = _context_lengths(manager)
    return await asyncio.to_thread(
        lambda: [_card(local, lengths) for local in manager.served_names if may_use(caller, local)]
    )


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
