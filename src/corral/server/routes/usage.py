"""What keys have used: /admin/usage of all of them, for admins, and /usage of the one that asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.errors import InvalidRequest
from corral.protocol.fields import show_value
from corral.server.caller import caller_of
from corral.server.routes.json_answer import json_response
from corral.server.usage.recorder import UsageRecorder
from corral.server.usage.report import DEFAULT_DAYS, csv_of, payload_of, question_of
from corral.server.usage.store import UsageStore

_PARAMETERS = ("days", "by", "model", "format")


def usage_routes(store: UsageStore, recorder: UsageRecorder) -> list[Route]:
    async def of_all(http: HTTPRequest) -> Response:
        return await answer(http, (*_PARAMETERS, "key"), None)

    async def own(http: HTTPRequest) -> Response:
        return await answer(http, _PARAMETERS, caller_of(http.scope).key_id)

    async def answer(http: HTTPRequest, known: tuple[str, ...], key_id: str | None) -> Response:
        """Raises InvalidRequest, StorageError."""
        for name in http.query_params:
            if name not in known:
                raise InvalidRequest(f"unknown parameter {name[:60]}", param=name[:60], code="unknown_parameter")
        given: dict[str, list[str]] = {
            name: [part for text in http.query_params.getlist(name) for part in text.split(",") if part]
            for name in known
        }
        form = (given["format"] or ["json"])[-1]
        if form not in ("json", "csv"):
            message = f"format is {show_value(form)}; it must be json or csv"
            raise InvalidRequest(message, param="format", code="invalid_value")
        fields: dict[str, Any] = {"by": given["by"]} if given["by"] else {}
        question = question_of(
            time.time(), _days(given["days"]), keys=given.get("key", ()), models=given["model"], key_id=key_id, **fields
        )
        await recorder.flush()
        lines = await asyncio.to_thread(store.read, question) if store.database.is_there else []
        if form == "json":
            return json_response(payload_of(question, lines))
        headers = {"Content-Disposition": 'attachment; filename="usage.csv"'}
        return Response(csv_of(question, lines), 200, headers, "text/csv; charset=utf-8")

    return [Route("/admin/usage", of_all), Route("/usage", own)]


def _days(given: list[str]) -> int:
    if not given:
        return DEFAULT_DAYS
    text = given[-1]
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        message = f"days is {show_value(text)}; it must be a whole number"
        raise InvalidRequest(message, param="days", code="invalid_value")
    return int(text)
