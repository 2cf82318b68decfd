"""OpenAI's routes: where the wire format and the workers meet."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import msgspec
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.errors import CorralError
from corral.protocol.answer import Answers, total_usage
from corral.protocol.openai_chat import ChatStream, encode_chat_answer, parse_chat
from corral.protocol.openai_completions import CompletionStream, encode_completion_answer, parse_completion
from corral.protocol.openai_errors import reply_to
from corral.protocol.openai_models import ModelCard, encode_model, encode_model_list
from corral.request import Request, RequestOutput, Usage
from corral.server.fan_out import Indexed, fan_out, wait_until_accepted
from corral.server.limits import read_json
from corral.server.model_defaults import apply, with_sampling_defaults
from corral.server.model_manager import ModelManager
from corral.server.streaming import EventStream, unless_disconnected
from corral.store.local_model import LocalModel

logger = logging.getLogger("corral.server")

OpenStream = Callable[[], bytes]
EncodeOutput = Callable[[int, RequestOutput], bytes]
CloseStream = Callable[[Usage], bytes]


def openai_routes(manager: ModelManager) -> list[Route]:
    """All below /v1."""

    async def list_models(_: HTTPRequest) -> Response:
        lengths = _context_lengths(manager)
        cards = await asyncio.to_thread(lambda: [_card(local, lengths) for local in manager.served_names])
        return _json(encode_model_list(cards))

    async def show_model(http: HTTPRequest) -> Response:
        local = manager.lookup(http.path_params["name"])
        return _json(encode_model(_card(local, _context_lengths(manager))))

    async def chat_completions(http: HTTPRequest) -> Response:
        body = await read_json(http)
        local = _find(manager, body)
        call = parse_chat(with_sampling_defaults(local, body) if local else body)
        local = local or manager.lookup(call.request.model)
        created = int(time.time())
        request = apply(local, call.request)
        if not call.stream:
            [answer] = await _answer(http, manager, local, [request])
            return _json(encode_chat_answer(call, answer, local.name, created))
        stream = ChatStream(call, local.name, created)
        return await _stream(
            http, manager, local, [request], stream.open, lambda _, output: stream.encode(output), stream.close
        )

    async def completions(http: HTTPRequest) -> Response:
        body = await read_json(http)
        local = _find(manager, body)
        call = parse_completion(with_sampling_defaults(local, body) if local else body)
        local = local or manager.lookup(call.requests[0].model)
        created = int(time.time())
        requests = [apply(local, request) for request in call.requests]
        if not call.stream:
            answers = await _answer(http, manager, local, requests)
            return _json(encode_completion_answer(call, answers, local.name, created))
        stream = CompletionStream(call, local.name, created)
        return await _stream(http, manager, local, requests, stream.open, stream.encode, stream.close)

    return [
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", show_model),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
    ]


def _find(manager: ModelManager, body: Mapping[str, object]) -> LocalModel | None:
    """The model of a body that is not checked yet; None where the checks, or the error of a lookup, shall say why."""
    name = body.get("model")
    if not isinstance(name, str):
        return None
    try:
        return manager.lookup(name)
    except CorralError:
        return None


def _json(payload: object) -> Response:
    return Response(msgspec.json.encode(payload), media_type="application/json")


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


async def _answer(
    http: HTTPRequest, manager: ModelManager, local: LocalModel, requests: Sequence[Request]
) -> list[Answers]:
    """The whole answers, one per request."""

    async def collect() -> list[Answers]:
        answers = [Answers(request.sampling.n) for request in requests]
        async with manager.lease(local) as model, aclosing(fan_out(model, requests)) as outputs:
            async for index, output in outputs:
                answers[index].add(output)
        return answers

    return await unless_disconnected(http.receive, collect())


async def _stream(
    http: HTTPRequest,
    manager: ModelManager,
    local: LocalModel,
    requests: Sequence[Request],
    open_stream: OpenStream,
    encode: EncodeOutput,
    close_stream: CloseStream,
) -> Response:
    """A stream of events; raises what refuses the call before the first byte is sent."""
    # Holds the lease and the outputs until the stream has ended, however it ends.
    held = AsyncExitStack()

    async def start() -> tuple[list[Indexed], AsyncGenerator[Indexed, None]]:
        model = await held.enter_async_context(manager.lease(local))
        outputs = await held.enter_async_context(aclosing(fan_out(model, requests)))
        return await wait_until_accepted(outputs, len(requests)), outputs

    try:
        seen, outputs = await unless_disconnected(http.receive, start())
    except BaseException:
        await held.aclose()
        raise
    return EventStream(_events(seen, outputs, len(requests), open_stream, encode, close_stream), held=held)


async def _events(
    seen: list[Indexed],
    outputs: AsyncGenerator[Indexed, None],
    num_requests: int,
    open_stream: OpenStream,
    encode: EncodeOutput,
    close_stream: CloseStream,
) -> AsyncGenerator[bytes, None]:
    usages = [Usage()] * num_requests
    try:
        yield open_stream()
        for index, output in seen:
            usages[index] = output.usage
            yield encode(index, output)
        async for index, output in outputs:
            usages[index] = output.usage
            yield encode(index, output)
    except CorralError as error:
        # The status line has long been sent; the error is the last event, and no end mark follows it.
        yield reply_to(error).event()
        return
    except Exception as error:
        logger.exception("a stream broke off")
        yield reply_to(error).event()
        return
    yield close_stream(total_usage(usages))
