"""OpenAI's routes: where the wire format and the workers meet."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.errors import CorralError
from corral.protocol.answer import Answers, total_usage
from corral.protocol.openai_chat import ChatStream, encode_chat_answer, parse_chat
from corral.protocol.openai_completions import CompletionStream, encode_completion_answer, parse_completion
from corral.protocol.openai_errors import reply_to
from corral.protocol.openai_models import encode_model, encode_model_list
from corral.request import Request, RequestOutput, Usage
from corral.server.fan_out import Indexed, fan_out, wait_until_accepted
from corral.server.limits import read_json
from corral.server.model_manager import ModelManager, ServedModel
from corral.server.streaming import EventStream, unless_disconnected

logger = logging.getLogger("corral.server")

OpenStream = Callable[[], bytes]
EncodeOutput = Callable[[int, RequestOutput], bytes]
CloseStream = Callable[[Usage], bytes]


def openai_routes(manager: ModelManager) -> list[Route]:
    """All below /v1."""

    async def list_models(_: HTTPRequest) -> Response:
        return _json(encode_model_list(model.card for model in manager.models))

    async def show_model(http: HTTPRequest) -> Response:
        return _json(encode_model(manager.find(http.path_params["name"]).card))

    async def chat_completions(http: HTTPRequest) -> Response:
        call = parse_chat(await read_json(http))
        model = manager.find(call.request.model)
        created = int(time.time())
        if not call.stream:
            [answer] = await _answer(http, model, [call.request])
            return _json(encode_chat_answer(call, answer, model.card.name, created))
        stream = ChatStream(call, model.card.name, created)
        return await _stream(
            http, model, [call.request], stream.open, lambda _, output: stream.encode(output), stream.close
        )

    async def completions(http: HTTPRequest) -> Response:
        call = parse_completion(await read_json(http))
        model = manager.find(call.requests[0].model)
        created = int(time.time())
        if not call.stream:
            answers = await _answer(http, model, call.requests)
            return _json(encode_completion_answer(call, answers, model.card.name, created))
        stream = CompletionStream(call, model.card.name, created)
        return await _stream(http, model, call.requests, stream.open, stream.encode, stream.close)

    return [
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", show_model),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
    ]


def _json(payload: object) -> Response:
    return Response(msgspec.json.encode(payload), media_type="application/json")


async def _answer(http: HTTPRequest, model: ServedModel, requests: Sequence[Request]) -> list[Answers]:
    """The whole answers, one per request."""

    async def collect() -> list[Answers]:
        answers = [Answers(request.sampling.n) for request in requests]
        async with aclosing(fan_out(model, requests)) as outputs:
            async for index, output in outputs:
                answers[index].add(output)
        return answers

    return await unless_disconnected(http.receive, collect())


async def _stream(
    http: HTTPRequest,
    model: ServedModel,
    requests: Sequence[Request],
    open_stream: OpenStream,
    encode: EncodeOutput,
    close_stream: CloseStream,
) -> Response:
    """A stream of events; raises what refuses the call before the first byte is sent."""
    outputs = fan_out(model, requests)
    try:
        seen = await unless_disconnected(http.receive, wait_until_accepted(outputs, len(requests)))
    except BaseException:
        await outputs.aclose()
        raise
    return EventStream(_events(seen, outputs, len(requests), open_stream, encode, close_stream))


async def _events(
    seen: list[Indexed],
    outputs: AsyncGenerator[Indexed, None],
    num_requests: int,
    open_stream: OpenStream,
    encode: EncodeOutput,
    close_stream: CloseStream,
) -> AsyncGenerator[bytes, None]:
    usages = [Usage()] * num_requests
    async with aclosing(outputs):
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
