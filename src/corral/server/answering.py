"""One call of an HTTP route, which may be several requests, from the lease of its model to the last event."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Protocol

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from corral.errors import CorralError
from corral.protocol.answer import Answers
from corral.protocol.sse import place_headers, with_place
from corral.request import Request, RequestOutput
from corral.server.exchange import exchange_of
from corral.server.fan_out import Indexed, fan_out, wait_until_accepted
from corral.server.model_manager import ModelManager
from corral.server.streaming import EventStream, unless_disconnected
from corral.store.local_model import LocalModel

logger = logging.getLogger("corral.server")


class StreamEncoder(Protocol):
    """Makes the events of one streamed call; b"" where there is nothing to tell. Each protocol has its own."""

    def open(self) -> bytes:
        """Before the first output."""

    def encode(self, index: int, output: RequestOutput) -> bytes:
        """Of one output; `index` is the request's."""

    def close(self) -> bytes:
        """When all requests have ended well."""

    def fail(self, error: Exception, request_id: str) -> bytes:
        """The last event of a call that broke off: its status line has long been sent."""


async def answer_whole(
    http: HTTPRequest, manager: ModelManager, local: LocalModel, requests: Sequence[Request]
) -> list[Answers]:
    """The whole answers, one per request.

    Raises:
        CorralError: what refuses the call.
        starlette.requests.ClientDisconnect: nobody waits for it any more.
    """

    async def collect() -> list[Answers]:
        answers = [Answers(request.sampling.n) for request in requests]
        async with (
            manager.lease(local, exchange_of(http.scope)) as model,
            aclosing(fan_out(model, requests)) as outputs,
        ):
            async for index, output in outputs:
                answers[index].add(output)
        return answers

    return await unless_disconnected(http.receive, collect())


async def answer_stream(
    http: HTTPRequest,
    manager: ModelManager,
    local: LocalModel,
    requests: Sequence[Request],
    encoder: StreamEncoder,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A stream of events; raises what refuses the call before the first byte is sent."""
    # Holds the lease and the outputs until the stream has ended, however it ends.
    held = AsyncExitStack()

    async def start() -> tuple[list[Indexed], AsyncGenerator[Indexed, None]]:
        model = await held.enter_async_context(manager.lease(local, exchange_of(http.scope)))
        outputs = await held.enter_async_context(aclosing(fan_out(model, requests)))
        return await wait_until_accepted(outputs, len(requests)), outputs

    try:
        seen, outputs = await unless_disconnected(http.receive, start())
    except BaseException:
        await held.aclose()
        raise
    told = {**(headers or {}), **place_headers(output for _, output in seen)}
    return EventStream(_events(seen, outputs, encoder, exchange_of(http.scope).request_id), held=held, headers=told)


async def _events(
    seen: list[Indexed], outputs: AsyncGenerator[Indexed, None], encoder: StreamEncoder, request_id: str
) -> AsyncGenerator[bytes, None]:
    try:
        yield encoder.open()
        for index, output in seen:
            yield with_place(encoder.encode(index, output), output)
        async for index, output in outputs:
            yield with_place(encoder.encode(index, output), output)
    except CorralError as error:
        yield encoder.fail(error, request_id)
        return
    except Exception as error:
        logger.exception("a stream broke off")
        yield encoder.fail(error, request_id)
        return
    yield encoder.close()


def find_model(manager: ModelManager, body: Mapping[str, object]) -> LocalModel | None:
    """The model of a body that is not checked yet; None where the checks, or the error of a lookup, shall say why."""
    name = body.get("model")
    if not isinstance(name, str):
        return None
    try:
        return manager.lookup(name)
    except CorralError:
        return None
