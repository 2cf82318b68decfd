"""Ollama's routes that see to the store: tags, show, pull, push, create, copy, delete, blobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.errors import CorralError, DigestMismatch, InvalidModelName, InvalidRequest, ModelNotFound
from corral.protocol.ollama.answer import encode_line
from corral.protocol.ollama.errors import ollama_error
from corral.protocol.ollama.fields import shorten
from corral.protocol.ollama.models import encode_list
from corral.protocol.ollama.store import (
    CreateCall,
    encode_status,
    parse_copy,
    parse_create,
    parse_delete,
    parse_digest,
    parse_pull,
    parse_push,
    parse_show,
)
from corral.protocol.openai.errors import reply_to
from corral.server.caller import caller_of
from corral.server.exchange import Exchange, exchange_of
from corral.server.limits import read_any_json
from corral.server.model_details import list_models, show_model
from corral.server.model_names import check_permission, may_use
from corral.server.routes.ollama import find_model, json_response
from corral.server.store_access import StoreAccess, remote_name, store_name
from corral.server.store_jobs import StoreJob, StoreJobs, chunks_from_loop
from corral.server.streaming import LineStream, unless_disconnected
from corral.store.status import Status

if TYPE_CHECKING:
    from corral.server.lifecycle import Lifecycle
    from corral.server.model_manager import ModelManager
    from corral.store.create import CreateSpec
    from corral.store.names import ModelName

SUCCESS = {"status": "success"}

logger = logging.getLogger("corral.server")


def ollama_store_routes(manager: ModelManager, store: StoreAccess, lifecycle: Lifecycle) -> list[Route]:
    """Those below /api that need no worker."""
    jobs = StoreJobs()
    lifecycle.on_refuse.append(jobs.interrupt)

    async def tags(http: HTTPRequest) -> Response:
        caller = caller_of(http.scope)
        models = await asyncio.to_thread(
            lambda: list_models([local for local in manager.served_names if may_use(caller, local)], store)
        )
        return json_response(encode_list(models))

    async def show(http: HTTPRequest) -> Response:
        call = parse_show(await read_any_json(http))
        local = check_permission(caller_of(http.scope), await find_model(manager, call.model), call.model)
        shown = await asyncio.to_thread(show_model, local, store, verbose=call.verbose, system=call.system)
        return json_response(shown.payload())

    async def pull(http: HTTPRequest) -> Response:
        call = parse_pull(await read_any_json(http))
        exchange_of(http.scope).model = call.model
        remote_name(call.model)
        job = jobs.start(lambda on_status: store.pull(call.model, on_status, insecure=call.insecure), is_transfer=True)
        return await _run(http, job, call.stream)

    async def push(http: HTTPRequest) -> Response:
        call = parse_push(await read_any_json(http))
        exchange_of(http.scope).model = call.model
        remote_name(call.model)
        job = jobs.start(lambda on_status: store.push(call.model, on_status, insecure=call.insecure), is_transfer=True)
        return await _run(http, job, call.stream)

    async def create(http: HTTPRequest) -> Response:
        call = parse_create(await read_any_json(http))
        exchange_of(http.scope).model = call.model
        store_name(remote_name(call.model))
        remote_name(call.from_)
        spec = _spec_of(call)
        return await _run(http, jobs.start(lambda on_status: store.create(call.model, spec, on_status)), call.stream)

    async def copy(http: HTTPRequest) -> Response:
        call = parse_copy(await read_any_json(http))
        exchange_of(http.scope).model = f"{call.source} -> {call.destination}"
        source, target = _checked_name("source", call.source), _checked_name("destination", call.destination)
        try:
            await asyncio.to_thread(store.library.copy, source, target)
        except ModelNotFound:
            raise ModelNotFound(f'model "{shorten(call.source)}" not found') from None
        return Response()

    async def delete(http: HTTPRequest) -> Response:
        name = parse_delete(await read_any_json(http))
        exchange_of(http.scope).model = name
        parsed = _checked_name("name", name)
        stored = await asyncio.to_thread(store.find, name)
        if stored is None:
            raise ModelNotFound(f"model '{shorten(name)}' not found")
        await _unload(manager, name)
        try:
            await asyncio.to_thread(store.library.delete, parsed)
        except CorralError as error:
            if type(error) is CorralError:  # Ollama's own model: nothing that the server could mend
                raise InvalidRequest(str(error)) from None
            raise
        return Response()

    async def blob(http: HTTPRequest) -> Response:
        digest = parse_digest(http.path_params["digest"])
        is_there = await asyncio.to_thread(store.has_blob, digest)
        if http.method == "POST":
            return Response() if is_there else await _add_blob(http, jobs, store, digest)
        if not is_there:
            raise ModelNotFound(f'blob "{digest}" not found')
        return Response()

    return [
        Route("/api/tags", tags),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/pull", pull, methods=["POST"]),
        Route("/api/push", push, methods=["POST"]),
        Route("/api/create", create, methods=["POST"]),
        Route("/api/copy", copy, methods=["POST"]),
        Route("/api/delete", delete, methods=["DELETE"]),
        Route("/api/blobs/{digest}", blob, methods=["HEAD", "POST"]),
    ]


async def _run(http: HTTPRequest, job: StoreJob[Any], stream: bool) -> Response:
    """A job's words as lines, or its success alone; it is abandoned when the client goes away."""
    if not stream:
        await unless_disconnected(http.receive, job.result())
        return json_response(SUCCESS)
    held = AsyncExitStack()
    held.callback(job.abandon)
    try:
        # What the job raises before its first word is still an HTTP status.
        statuses = job.statuses()
        first = await unless_disconnected(http.receive, _next(statuses))
    except BaseException:
        await held.aclose()
        raise
    return LineStream(_lines(first, statuses, exchange_of(http.scope)), held=held)


async def _next(statuses: AsyncGenerator[Status, None]) -> Status | None:
    return await anext(statuses, None)


async def _lines(
    first: Status | None, statuses: AsyncGenerator[Status, None], exchange: Exchange
) -> AsyncGenerator[bytes, None]:
    """Ends with the error that ended the job, which is the exchange's cause too: its status has long been sent."""
    exchange.cause = "abandoned"  # unless it comes to its end
    async with aclosing(statuses):
        try:
            if first is not None:
                yield _line(first)
            async for status in statuses:
                yield _line(status)
            exchange.cause = ""
        except CorralError as error:
            exchange.cause = reply_to(error).code or "error"
            logger.error("a job of the store failed: %s", error)
            yield ollama_error(error).naming(exchange.request_id).line()
        except Exception as error:
            logger.exception("a job of the store broke off")
            exchange.cause = "internal_error"
            yield ollama_error(error).naming(exchange.request_id).line()


def _line(status: Status) -> bytes:
    return encode_line(encode_status(status.status, status.digest, status.total, status.completed))


async def _add_blob(http: HTTPRequest, jobs: StoreJobs, store: StoreAccess, digest: str) -> Response:
    chunks = chunks_from_loop(http.stream(), asyncio.get_running_loop())
    job = jobs.start(lambda _: store.add_blob(digest, chunks))
    try:
        is_new = await job.result()
    except DigestMismatch as error:
        raise InvalidRequest(str(error), param="digest") from None
    return Response(status_code=201 if is_new else 200)


async def _unload(manager: ModelManager, name: str) -> None:
    """So that a deleted model does not live on in memory; refused of a model that the server was told to keep."""
    try:
        local = await find_model(manager, name)
    except (ModelNotFound, InvalidModelName):
        return  # it is in the store, but not among those served
    await manager.unload(local)


def _checked_name(what: str, text: str) -> ModelName:
    try:
        return store_name(text)
    except InvalidModelName:
        raise InvalidRequest(f'{what} "{shorten(text)}" is invalid', param=what) from None


def _spec_of(call: CreateCall) -> CreateSpec:
    from corral.store.create import CreateSpec

    return CreateSpec(
        from_=call.from_ or None,
        files=call.files,
        adapters=call.adapters,
        template=call.template or None,
        system=call.system or None,
        parameters=call.parameters,
        messages=call.messages,
        licenses=call.licenses,
        quantize=call.quantize or None,
        renderer=call.renderer or None,
        parser=call.parser or None,
        requires=call.requires or None,
    )
