"""What lists of OpenAI's API have in common: their pages, and what is missing from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from corral.errors import InvalidRequest
from corral.protocol.openai.errors import ErrorReply
from corral.server.limits import RefusedError
from corral.server.routes.json_answer import json_response


def missing(what: str, given: str, param: str = "id") -> RefusedError:
    return RefusedError(ErrorReply(404, f"there is no {what} {given[:100]!r}", param=param, code="not_found"))


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which part of a list is wanted."""

    after: str | None
    limit: int
    is_newest_first: bool


def page_query(http: HTTPRequest, default: int, most: int) -> PageQuery:
    """Raises InvalidRequest."""
    query = http.query_params
    if (order := query.get("order", "desc")) not in ("asc", "desc"):
        raise InvalidRequest("order must be asc or desc", param="order", code="invalid_value")
    limit = query.get("limit", str(default))
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= most):
        raise InvalidRequest(f"limit must be a whole number from 1 to {most}", param="limit", code="invalid_value")
    return PageQuery(query.get("after") or None, int(limit), order == "desc")


def page_response(items: list[dict[str, Any]], *, has_more: bool) -> Response:
    ends = {"first_id": items[0]["id"] if items else None, "last_id": items[-1]["id"] if items else None}
    return json_response({"object": "list", "data": items, **ends, "has_more": has_more})
