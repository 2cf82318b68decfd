"""Error replies straight onto the wire, for middleware that stands outside of the routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.protocol.openai_errors import ErrorReply

if TYPE_CHECKING:
    from starlette.types import Send


async def send_reply(send: Send, reply: ErrorReply) -> None:
    """Answers a request without calling the app."""
    body = reply.body()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}
    raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": body})
