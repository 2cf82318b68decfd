"""OpenAI's /v1/files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request as HTTPRequest
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from corral.errors import InvalidRequest
from corral.limits import MAX_FILE_BYTES, MAX_STORED_FILE_BYTES
from corral.protocol.openai.batches import PURPOSES, check_expiry
from corral.protocol.openai.errors import body_too_large
from corral.server.caller import owner_of
from corral.server.file_store import FileStore
from corral.server.limits import RefusedError
from corral.server.routes.json_answer import json_response
from corral.server.routes.pages import missing, page_query, page_response

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # clients could fill the log with their broken forms

DEFAULT_PAGE = MAX_PAGE = 10_000


@contextlib.asynccontextmanager
async def _form_of(http: HTTPRequest) -> AsyncIterator[FormData]:
    """What was uploaded. Its files are closed in any case; the parser closes none of a form that breaks off."""
    parser = MultiPartParser(http.headers, http.stream(), max_files=1, max_fields=16)
    try:
        yield await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(f"the form cannot be read: {error.message}", param="file") from None
    finally:
        for file in parser._files_to_close_on_error:
            file.close()


def file_routes(store: FileStore) -> list[Route]:
    async def create_file(http: HTTPRequest) -> Response:
        if not http.headers.get("content-type", "").startswith("multipart/form-data"):
            raise InvalidRequest("the body must be multipart/form-data with file and purpose", param="file")
        async with _form_of(http) as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile):
                raise InvalidRequest("file is required", param="file", code="missing_required_parameter")
            if purpose not in PURPOSES:
                message = f"purpose must be one of {', '.join(PURPOSES)}"
                raise InvalidRequest(message, param="purpose", code="invalid_value")
            if (file.size or 0) > MAX_FILE_BYTES:
                raise RefusedError(body_too_large(MAX_FILE_BYTES))
            text = form.get("expires_after[seconds]")
            if text is not None and not (isinstance(text, str) and text.isdecimal() and len(text) < 10):
                raise InvalidRequest("expires_after.seconds must be a whole number", param="expires_after.seconds")
            seconds = check_expiry(int(str(text)), "expires_after.seconds") if text is not None else None
            name = Path((file.filename or "file").replace("\\", "/")).name[:255] or "file"
            made = await asyncio.to_thread(store.add, owner_of(http.scope), file.file, name, str(purpose), seconds)
        if made is None:
            message = f"all files together may take {MAX_STORED_FILE_BYTES} bytes; delete some"
            raise InvalidRequest(message, param="file", code="limit_exceeded")
        return json_response(made)

    async def list_files(http: HTTPRequest) -> Response:
        query, purpose = page_query(http, DEFAULT_PAGE, MAX_PAGE), http.query_params.get("purpose")
        page = await asyncio.to_thread(
            lambda: store.page(
                owner_of(http.scope),
                after=query.after,
                limit=query.limit,
                is_newest_first=query.is_newest_first,
                purpose=purpose,
            )
        )
        if page is None:
            raise missing("file", query.after or "", "after")
        return page_response(page[0], has_more=page[1])

    async def show_file(http: HTTPRequest) -> Response:
        return json_response(await _file(http))

    async def file_content(http: HTTPRequest) -> Response:
        file = await _file(http)
        return FileResponse(store.path(file["id"]), media_type="application/octet-stream", filename=file["filename"])

    async def delete_file(http: HTTPRequest) -> Response:
        file_id = http.path_params["id"]
        if not await asyncio.to_thread(store.delete, owner_of(http.scope), file_id):
            raise missing("file", file_id)
        return json_response({"id": file_id, "object": "file", "deleted": True})

    async def _file(http: HTTPRequest) -> dict[str, Any]:
        file = await asyncio.to_thread(store.get, owner_of(http.scope), http.path_params["id"])
        if file is None:
            raise missing("file", http.path_params["id"])
        return file

    return [
        Route("/v1/files", create_file, methods=["POST"]),
        Route("/v1/files", list_files),
        Route("/v1/files/{id}", show_file),
        Route("/v1/files/{id}", delete_file, methods=["DELETE"]),
        Route("/v1/files/{id}/content", file_content),
    ]
