"""OpenAI's /v1/batches."""

from __future__ import annotations

import asyncio
import secrets
import time

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.errors import InvalidRequest
from corral.protocol.openai.batches import new_batch, parse_batch
from corral.protocol.openai.errors import ErrorReply
from corral.server.batch_runner import BatchRunner
from corral.server.batch_store import BatchStore
from corral.server.caller import owner_of
from corral.server.limits import RefusedError, read_json
from corral.server.routes.json_answer import json_response
from corral.server.routes.pages import missing, page_query, page_response

DEFAULT_PAGE, MAX_PAGE = 20, 100


def batch_routes(store: BatchStore, runner: BatchRunner) -> list[Route]:
    async def create_batch(http: HTTPRequest) -> Response:
        fields = parse_batch(await read_json(http))
        owner = owner_of(http.scope)
        file = await asyncio.to_thread(store.files.get, owner, fields.input_file_id)
        if file is None:
            raise missing("file", fields.input_file_id, "input_file_id")
        if file["purpose"] != "batch":
            raise InvalidRequest("the file's purpose must be batch", param="input_file_id", code="invalid_value")
        batch = new_batch(f"batch_{secrets.token_hex(12)}", fields, int(time.time()))
        seconds = fields.output_expires_after.seconds if fields.output_expires_after else None
        await asyncio.to_thread(store.create, owner, batch, seconds)
        runner.wake()
        return json_response(batch)

    async def list_batches(http: HTTPRequest) -> Response:
        query = page_query(http, DEFAULT_PAGE, MAX_PAGE)
        page = await asyncio.to_thread(
            lambda: store.page(
                owner_of(http.scope), after=query.after, limit=query.limit, is_newest_first=query.is_newest_first
            )
        )
        if page is None:
            raise missing("batch", query.after or "", "after")
        return page_response(page[0], has_more=page[1])

    async def show_batch(http: HTTPRequest) -> Response:
        batch = await asyncio.to_thread(store.get, owner_of(http.scope), http.path_params["id"])
        if batch is None:
            raise missing("batch", http.path_params["id"])
        return json_response(batch)

    async def cancel_batch(http: HTTPRequest) -> Response:
        batch = await asyncio.to_thread(store.cancel, owner_of(http.scope), http.path_params["id"])
        if batch is None:
            raise missing("batch", http.path_params["id"])
        if batch["status"] != "cancelling":
            raise RefusedError(ErrorReply(409, f"the batch is {batch['status']}; it cannot be cancelled"))
        runner.cancel(batch["id"])
        return json_response(batch)

    return [
        Route("/v1/batches", create_batch, methods=["POST"]),
        Route("/v1/batches", list_batches),
        Route("/v1/batches/{id}", show_batch),
        Route("/v1/batches/{id}/cancel", cancel_batch, methods=["POST"]),
    ]
