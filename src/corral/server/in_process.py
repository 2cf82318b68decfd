"""A request to the server's own routes that needs no socket."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message

from corral.server.caller import Caller


async def post(app: ASGIApp, path: str, body: bytes, caller: Caller) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer to a POST of JSON.

    Args:
        caller: in whose name it is asked.
    """
    messages: list[Message] = [{"type": "http.request", "body": body}]
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # nobody disconnects
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode()}
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await app({**scope, "query_string": b"", "headers": headers, "corral.caller": caller}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:])
