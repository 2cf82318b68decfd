"""OpenAI's Responses API: answers that may be stored, and gone on from."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.errors import CorralError, InvalidRequest
from corral.protocol.fields import show_value
from corral.protocol.openai.errors import ErrorReply, not_found
from corral.protocol.responses.answer import ResponseWriter, encode_item_list
from corral.protocol.responses.call import ResponsesCall, parse_responses
from corral.protocol.sse import place_headers, with_place
from corral.request import Request
from corral.server.answering import find_model
from corral.server.caller import owner_of
from corral.server.database import Database
from corral.server.exchange import exchange_of
from corral.server.fan_out import Indexed, fan_out, wait_until_accepted
from corral.server.ignored import ignored_fields, ignored_headers
from corral.server.limits import RefusedError, read_json
from corral.server.model_defaults import apply, with_sampling_defaults
from corral.server.model_manager import ModelManager
from corral.server.response_store import ResponseStore, StoredResponse
from corral.server.routes.json_answer import json_response
from corral.server.streaming import EventStream, unless_disconnected
from corral.store.local_model import LocalModel

logger = logging.getLogger("corral.server")

DEFAULT_PAGE = 20  # OpenAI's
MAX_PAGE = 100


@dataclass(frozen=True, slots=True)
class _Turn:
    """One call, ready to be answered."""

    call: ResponsesCall
    request: Request
    local: LocalModel
    owner: str
    writer: ResponseWriter
    request_id: str  # of the exchange


def responses_routes(manager: ModelManager, database: Database) -> list[Route]:
    """All below /v1/responses."""
    store = ResponseStore(database)

    async def create(http: HTTPRequest) -> Response:
        body = await read_json(http)
        local = find_model(manager, body)
        ignored = ignored_fields(http)
        call = parse_responses(_with_defaults(local, body) if local else body, ignored)
        local = local or manager.lookup(call.request.model)
        owner = owner_of(http.scope)
        if call.references:
            call = call.resolved(await store.find_items(owner, call.references))
        history = await store.history(owner, call.previous_id) if call.previous_id is not None else []
        request = apply(local, call.with_history(history))
        writer = ResponseWriter(call, local.name, int(time.time()))
        turn = _Turn(call, request, local, owner, writer, exchange_of(http.scope).request_id)
        answer = _stream if call.stream else _whole
        try:
            return await answer(http, turn, ignored or ())
        except InvalidRequest as error:
            if error.param != "think" or not isinstance(request.think, str):
                raise
        # As for chats: clients send an effort to models that do not think as well, and the header says so.
        turn = replace(turn, request=replace(request, think=None))
        return await answer(http, turn, [*(ignored or ()), "reasoning.effort"])

    async def _whole(http: HTTPRequest, turn: _Turn, ignored: Sequence[str]) -> Response:
        async def collect() -> None:
            async with (
                manager.lease(turn.local, exchange_of(http.scope)) as model,
                aclosing(fan_out(model, [turn.request])) as outputs,
            ):
                async for _, output in outputs:
                    turn.writer.add(output)

        await unless_disconnected(http.receive, collect())
        response, _, _ = turn.writer.end(int(time.time()))
        await keep(turn, response)
        return json_response(response, ignored_headers(turn.local.name, ignored))

    async def _stream(http: HTTPRequest, turn: _Turn, ignored: Sequence[str]) -> Response:
        # Holds the lease and the outputs until the stream has ended, however it ends.
        held = AsyncExitStack()

        async def start() -> tuple[list[Indexed], AsyncGenerator[Indexed, None]]:
            model = await held.enter_async_context(manager.lease(turn.local, exchange_of(http.scope)))
            outputs = await held.enter_async_context(aclosing(fan_out(model, [turn.request])))
            return await wait_until_accepted(outputs, 1), outputs

        try:
            seen, outputs = await unless_disconnected(http.receive, start())
        except BaseException:
            await held.aclose()
            raise
        headers = {**ignored_headers(turn.local.name, ignored), **place_headers(output for _, output in seen)}
        return EventStream(_events(turn, seen, outputs), held=held, headers=headers)

    async def _events(
        turn: _Turn, seen: list[Indexed], outputs: AsyncGenerator[Indexed, None]
    ) -> AsyncGenerator[bytes, None]:
        writer = turn.writer
        has_ended = False
        try:
            try:
                yield writer.open()
                for _, output in seen:
                    yield with_place(writer.encode(output), output)
                async for _, output in outputs:
                    yield with_place(writer.encode(output), output)
            except Exception as error:
                if not isinstance(error, CorralError):
                    logger.exception("a stream broke off")
                has_ended = True
                response, last = writer.fail(error, turn.request_id)
            else:
                has_ended = True
                response, before, last = writer.end(int(time.time()))
                yield before
            # Who reads the last event may go on from the response at once, so it is stored before that.
            try:
                await keep(turn, response)
            except CorralError as error:
                last = writer.error_event(error, turn.request_id)
            yield last
        finally:
            if not has_ended:  # the client has gone
                await keep(turn, writer.cancel())

    async def keep(turn: _Turn, response: dict[str, Any]) -> None:
        if turn.call.store:
            await store.save(turn.owner, StoredResponse(response, turn.call.items))

    async def find(http: HTTPRequest) -> StoredResponse:
        response_id = http.path_params["response_id"]
        found = await store.find(owner_of(http.scope), response_id)
        if found is None:
            raise RefusedError(_not_found(response_id))
        return found

    async def retrieve(http: HTTPRequest) -> Response:
        _check_query(http, ("include", "include[]", "include_obfuscation", "stream"))
        if http.query_params.get("stream", "false") != "false":
            message = "stream is not supported here: a response is stored when it has ended; leave stream out"
            raise InvalidRequest(message, param="stream", code="unsupported_parameter")
        return json_response((await find(http)).body)

    async def delete(http: HTTPRequest) -> Response:
        response_id = http.path_params["response_id"]
        if not await store.delete(owner_of(http.scope), response_id):
            raise RefusedError(_not_found(response_id))
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def cancel(http: HTTPRequest) -> Response:
        await find(http)
        raise InvalidRequest("Cannot cancel a synchronous response.", code="invalid_value")

    async def input_items(http: HTTPRequest) -> Response:
        _check_query(http, ("after", "include", "include[]", "limit", "order"))
        items = list((await find(http)).input_items)
        if _choice(http, "order", ("desc", "asc")) == "desc":
            items.reverse()
        if (after := http.query_params.get("after")) is not None:
            places = [place for place, item in enumerate(items) if item["id"] == after]
            if not places:
                raise InvalidRequest(f"after is {show_value(after)}; no item has this id", param="after")
            items = items[places[0] + 1 :]
        limit = _limit(http)
        return json_response(encode_item_list(items[:limit], has_more=len(items) > limit))

    async def compact(http: HTTPRequest) -> Response:
        raise RefusedError(not_found(http.scope["path"]))  # else it would pass for an id, and the method be at fault

    path = "/v1/responses/{response_id}"
    return [
        Route("/v1/responses", create, methods=["POST"]),
        Route("/v1/responses/compact", compact, methods=["POST"]),
        Route(path, retrieve),
        Route(path, delete, methods=["DELETE"]),
        Route(f"{path}/cancel", cancel, methods=["POST"]),
        Route(f"{path}/input_items", input_items),
    ]


def _with_defaults(local: LocalModel, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body over the Modelfile's PARAMETERs; what it says itself, null too, stays."""
    defaults = with_sampling_defaults(local, {})
    if "max_tokens" in defaults:
        defaults["max_output_tokens"] = defaults.pop("max_tokens")
    return {**body, **{name: value for name, value in defaults.items() if body.get(name) is None}}


def _check_query(http: HTTPRequest, known: tuple[str, ...]) -> None:
    for name in http.query_params:
        if name not in known:
            raise InvalidRequest(f"unknown parameter {name[:60]}", param=name[:60], code="unknown_parameter")


def _choice(http: HTTPRequest, name: str, allowed: tuple[str, ...]) -> str:
    given = http.query_params.get(name, allowed[0])
    if given not in allowed:
        message = f"{name} is {show_value(given)}; it must be one of {', '.join(allowed)}"
        raise InvalidRequest(message, param=name, code="invalid_value")
    return given


def _limit(http: HTTPRequest) -> int:
    given = http.query_params.get("limit", str(DEFAULT_PAGE))
    if not (given.isascii() and given.isdecimal() and len(given) <= 3 and 1 <= int(given) <= MAX_PAGE):
        message = f"limit is {show_value(given)}; it must be a whole number from 1 to {MAX_PAGE}"
        raise InvalidRequest(message, param="limit", code="invalid_value")
    return int(given)


def _not_found(response_id: str) -> ErrorReply:
    return ErrorReply(404, f"Response with id '{response_id[:100]}' not found.")
