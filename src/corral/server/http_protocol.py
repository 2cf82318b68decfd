"""uvicorn's HTTP parser with the limits it lacks: of a request's head, of slow and silent clients, of connections."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from corral.limits import LINGER_S, MAX_HEAD_BYTES, MAX_PIPELINED
from corral.protocol.openai.errors import ErrorReply, headers_too_large
from corral.server.connections import Connections, TooManyConnections, Verdict


class LimitedProtocol(HttpToolsProtocol):
    """Closes connections whose head is too large or too slow; answers what is no HTTP with an error object.

    A connection that is to be closed is given a bounded time to take what it was sent, and one whose answer is out a
    bounded time to send a body that nobody reads. A client that takes nothing of its answer for too long is cut off.
    """

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open = connections
        self._limits = connections.limits
        self._is_counted = False
        self._running: RequestResponseCycle | None = None
        self._is_in_head = True
        self._is_in_body = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        verdict = self._open.enter(self._address)
        self._is_counted = True
        if verdict is Verdict.CLOSED:
            transport.abort()
            return
        if verdict is not Verdict.OPEN:
            self.app = TooManyConnections(self.app, verdict)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        if self._is_counted:
            self._is_counted = False
            self._open.leave(self._address)
        super().connection_lost(exc)
        # uvicorn tells the last request that was read; the one that is being answered may be another.
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        # What the parser holds of an unfinished head grows with every call; one call brings at most 256 KiB.
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(headers_too_large(MAX_HEAD_BYTES))
        elif not self._is_in_body and self._is_idle and self._head_timer is None:
            self._start_head_timer()  # empty lines between requests begin no message, and have ended the idle time

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0
        self._start_head_timer()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._is_in_body = True
        self._stop_head_timer()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise OverflowError("too many requests wait for their turn")  # ends the parser: they are no valid HTTP
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_body = False
        if self._linger_timer is not None and not self.transport.is_closing():
            self._linger_timer.cancel()
            self._linger_timer = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # A pipelined request may be whose body is still on its way; its own answer sees to that.
        if self.transport.is_closing() or (self._is_in_body and self._is_idle):
            self._linger()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._linger()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ErrorReply(400, "this is not a valid HTTP request", code="invalid_http"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Says nothing: the request is answered as HTTP/1.1, and a client could fill the log with it."""

    @property
    def _address(self) -> str | None:
        return self.client[0] if self.client else None

    @property
    def _is_idle(self) -> bool:
        """Whether no answer is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _start_head_timer(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self._limits.head_timeout_s, self._close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _linger(self) -> None:
        """Some more time for the client, and no end of it."""
        if self._linger_timer is None:
            self._linger_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _close(self) -> None:
        """As soon as the client has taken what it was sent."""
        if not self.transport.is_closing():
            self.transport.close()
            self._linger()

    def _refuse(self, reply: ErrorReply) -> None:
        if self._is_idle:
            body = reply.body()
            head = (
                f"HTTP/1.1 {reply.status} {http.HTTPStatus(reply.status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
        self._close()  # without a word where an answer is being sent: nothing may be written into it


def limited_protocol(connections: Connections) -> Callable[..., LimitedProtocol]:
    """What makes the protocols of one server's connections."""
    return partial(LimitedProtocol, connections=connections)
