"""OpenAI's /v1/files and /v1/batches."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from corral.errors import InvalidRequest
from corral.protocol.openai_batches import PURPOSES, check_expiry, new_batch, parse_batch
from corral.protocol.openai_errors import ErrorReply
from corral.server.batch_runner import BatchRunner
from corral.server.file_store import MAX_FILE_BYTES, MAX_TOTAL_BYTES, FileStore
from corral.server.limits import RefusedError, read_json


def batch_routes(store: FileStore, runner: BatchRunner) -> list[Route]:
    async def create_file(http: HTTPRequest) -> Response:
        if not http.headers.get("content-type", "").startswith("multipart/form-data"):
            raise InvalidRequest("the body must be multipart/form-data with file and purpose", param="file")
        try:
            await http.form(max_files=1, max_fields=16)  # read once, kept by the request
        except HTTPException as error:
            raise InvalidRequest(f"the form cannot be read: {error.detail}", param="file") from None
        async with http.form() as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile):
                raise InvalidRequest("file is required", param="file", code="missing_required_parameter")
            if purpose not in PURPOSES:
                message = f"purpose must be one of {', '.join(PURPOSES)}"
                raise InvalidRequest(message, param="purpose", code="invalid_value")
            if (file.size or 0) > MAX_FILE_BYTES:
                raise InvalidRequest(f"the file is larger than {MAX_FILE_BYTES} bytes", param="file")
            text = form.get("expires_after[seconds]")
            if text is not None and not (isinstance(text, str) and text.isdecimal() and len(text) < 10):
                raise InvalidRequest("expires_after.seconds must be a whole number", param="expires_after.seconds")
            seconds = check_expiry(int(str(text)), "expires_after.seconds") if text is not None else None
            name = Path((file.filename or "file").replace("\\", "/")).name[:255] or "file"
            made = await asyncio.to_thread(store.add, _owner(http), file.file, name, str(purpose), seconds)
        if made is None:
            raise InvalidRequest(f"all files together may take {MAX_TOTAL_BYTES} bytes; delete some", param="file")
        return _json(made)

    async def list_files(http: HTTPRequest) -> Response:
        files = await asyncio.to_thread(store.files, _owner(http))
        purpose = http.query_params.get("purpose")
        return _page(http, [f for f in files if purpose in (None, f["purpose"])], 10_000, "desc")

    async def show_file(http: HTTPRequest) -> Response:
        return _json(await _file(http))

    async def file_content(http: HTTPRequest) -> Response:
        file = await _file(http)
        return FileResponse(store.path(file["id"]), media_type="application/octet-stream", filename=file["filename"])

    async def delete_file(http: HTTPRequest) -> Response:
        file_id = http.path_params["id"]
        if not await asyncio.to_thread(store.delete, _owner(http), file_id):
            raise _missing("file", file_id)
        return _json({"id": file_id, "object": "file", "deleted": True})

    async def _file(http: HTTPRequest) -> dict[str, Any]:
        file = await asyncio.to_thread(store.get, _owner(http), http.path_params["id"])
        if file is None:
            raise _missing("file", http.path_params["id"])
        return file

    async def create_batch(http: HTTPRequest) -> Response:
        fields = parse_batch(await read_json(http))
        owner = _owner(http)
        file = await asyncio.to_thread(store.get, owner, fields.input_file_id)
        if file is None:
            raise _missing("file", fields.input_file_id, "input_file_id")
        if file["purpose"] != "batch":
            raise InvalidRequest("the file's purpose must be batch", param="input_file_id", code="invalid_value")
        batch = new_batch(f"batch_{secrets.token_hex(12)}", fields, int(time.time()))
        seconds = fields.output_expires_after.seconds if fields.output_expires_after else None

        def save() -> None:
            # A link of its own: the client may delete the file while the batch runs.
            folder = store.work_folder / batch["id"]
            folder.mkdir(parents=True, mode=0o700)
            os.link(store.path(file["id"]), folder / "input.jsonl")
            store.save_batch(owner, batch, seconds, is_new=True)

        await asyncio.to_thread(save)
        runner.wake()
        return _json(batch)

    async def list_batches(http: HTTPRequest) -> Response:
        return _page(http, await asyncio.to_thread(store.batches, _owner(http)), 20, "desc")

    async def _batch(http: HTTPRequest) -> dict[str, Any]:
        batches: list[dict[str, Any]] = await asyncio.to_thread(store.batches, _owner(http))
        for batch in batches:
            if batch["id"] == http.path_params["id"]:
                return batch
        raise _missing("batch", http.path_params["id"])

    async def show_batch(http: HTTPRequest) -> Response:
        return _json(await _batch(http))

    async def cancel_batch(http: HTTPRequest) -> Response:
        batch = await _batch(http)
        if batch["status"] not in ("validating", "in_progress", "cancelling"):
            raise RefusedError(ErrorReply(409, f"the batch is {batch['status']}; it cannot be cancelled"))
        runner.cancelled.add(batch["id"])
        batch |= {"status": "cancelling", "cancelling_at": batch["cancelling_at"] or int(time.time())}
        await asyncio.to_thread(store.save_batch, _owner(http), batch)
        return _json(batch)

    return [
        Route("/v1/files", create_file, methods=["POST"]),
        Route("/v1/files", list_files),
        Route("/v1/files/{id}", show_file),
        Route("/v1/files/{id}", delete_file, methods=["DELETE"]),
        Route("/v1/files/{id}/content", file_content),
        Route("/v1/batches", create_batch, methods=["POST"]),
        Route("/v1/batches", list_batches),
        Route("/v1/batches/{id}", show_batch),
        Route("/v1/batches/{id}/cancel", cancel_batch, methods=["POST"]),
    ]


def _owner(http: HTTPRequest) -> str:
    return str(http.scope.get("corral.owner", ""))


def _missing(what: str, given: str, param: str = "id") -> RefusedError:
    return RefusedError(ErrorReply(404, f"there is no {what} {given[:100]!r}", param=param, code="not_found"))


def _page(http: HTTPRequest, items: list[dict[str, Any]], default: int, order: str) -> Response:
    """A page of `items`, which are oldest first."""
    query = http.query_params
    if (order := query.get("order", order)) not in ("asc", "desc"):
        raise InvalidRequest("order must be asc or desc", param="order", code="invalid_value")
    limit = query.get("limit", str(default))
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= 10_000):
        raise InvalidRequest("limit must be a whole number from 1 to 10000", param="limit", code="invalid_value")
    items = items[::-1] if order == "desc" else items
    if after := query.get("after"):
        position = next((n for n, item in enumerate(items) if item["id"] == after), None)
        if position is None:
            raise _missing("item", after, "after")
        items = items[position + 1 :]
    page = items[: int(limit)]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return _json({"object": "list", "data": page, **ends, "has_more": len(items) > len(page)})


def _json(payload: object) -> Response:
    return Response(msgspec.json.encode(payload), media_type="application/json")
