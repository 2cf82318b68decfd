"""One HTTP request and its answer: what is known of it, from its first byte to the last one it is answered with.

Whoever counts, measures, logs or bills gets it here: an Observer is told of every output and of the end.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from corral.logs import about, shows_prompts
from corral.protocol.ids import new_id
from corral.request import EmbedRequest, EmbedResult, FinishReason, Request, RequestOutput, Timings, Usage
from corral.server.caller import Caller, caller_of
from corral.server.replies import error_response, is_anthropic

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = b"x-request-id"
ANTHROPICS_HEADER = b"request-id"  # the same, where Anthropic's clients look for it
MAX_SHOWN_PATH = 200  # characters of a path that the log repeats
TRACE_HEADERS = (b"traceparent", b"tracestate")  # W3C's
MAX_TRACE_HEADER = 512  # bytes
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")  # what a client may call its request

logger = logging.getLogger("corral.server")

_http_ids: dict[str, str] = {}  # of the requests to engines that are under way, by what the engines call them


def http_id_of(engine_id: str) -> str:
    """What clients call a request that an engine knows by this id; the id itself if no such request is under way."""
    return _http_ids.get(engine_id, engine_id)


@dataclass(eq=False, slots=True)
class Generation:
    """What one request to an engine came to: `n` answers over one prompt, or the vectors of some texts.

    Args:
        submitted, first_token, last_token: monotonic seconds; None before it happened.
        usage: as of the last output.
        timings: as the first worker that came to a token measured them.
        finish_reasons: of the answers that have ended, by their index.
        num_replays: how often its worker was lost and it went on in the next one.
        replayed: when, each time; monotonic seconds.
    """

    request: Request | EmbedRequest
    submitted: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    last_token: float | None = None
    usage: Usage = field(default_factory=Usage)
    timings: Timings | None = None
    finish_reasons: dict[int, FinishReason] = field(default_factory=dict)
    num_replays: int = 0
    replayed: list[float] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Exchange:
    """See the head of this file.

    Args:
        request_id: the client's own X-Request-Id, or one of ours; every answer tells it.
        path: the parser's own, never rebuilt from headers.
        started: monotonic seconds, as all times here.
        model: the name of the model that it uses; "" while none is known.
        deadline: when nobody waits for it any more; None is never.
        load_s: how long it waited for its model to be loaded.
        status: of the answer; 0 while it has none, 499 for a client that went away before it.
        management: what it does to keys or models, in the words of the audit log; "" for a mere use.
        cause: the machine-readable code of what broke it off after its status was sent; "" if nothing did.
        refusal: the same of the error that it was answered with.
        is_whole: the last byte of the answer was sent.
        trace_headers: what the client says of the trace that the request belongs to.
        trace_id: of its trace, in hex; "" while none is known.
        is_counted: it uses a model, as one request of its key.
    """

    request_id: str = field(default_factory=lambda: new_id("req"))
    method: str = ""
    path: str = ""
    caller: Caller = field(default_factory=Caller)
    started: float = field(default_factory=time.monotonic)
    model: str = ""
    deadline: float | None = None
    load_s: float = 0.0
    status: int = 0
    cause: str = ""
    refusal: str = ""
    is_whole: bool = False
    trace_headers: dict[str, str] = field(default_factory=dict)
    trace_id: str = ""
    management: str = ""
    is_counted: bool = False
    generations: list[Generation] = field(default_factory=list)
    observers: Sequence[Observer] = ()
    engine_ids: list[str] = field(default_factory=list)

    def on_account(self, request: Request) -> Request:
        """The request in the caller's name: with its share, its cached prefixes, and the time that it has."""
        caller = self.caller
        self._name(request.request_id)
        return replace(
            request,
            cache_salt=f"{caller.cache_salt}{request.cache_salt}",
            tenant=caller.owner,
            weight=caller.priority,
            deadline=self.deadline,
        )

    def embed_on_account(self, request: EmbedRequest) -> EmbedRequest:
        """As `on_account`; embeddings share no prefixes."""
        self._name(request.request_id)
        return replace(request, tenant=self.caller.owner, weight=self.caller.priority, deadline=self.deadline)

    def _name(self, engine_id: str) -> None:
        """What is logged of it from here on, in whatever process, is this exchange's."""
        self.engine_ids.append(engine_id)
        _http_ids[engine_id] = self.request_id

    def forget_names(self) -> None:
        """It has ended."""
        for engine_id in self.engine_ids:
            _http_ids.pop(engine_id, None)

    def begin(self, request: Request | EmbedRequest) -> Generation:
        """A request goes to an engine."""
        if shows_prompts():
            from corral.server.logs.requests import log_request

            log_request(request)
        generation = Generation(request)
        self.generations.append(generation)
        return generation

    def saw(self, generation: Generation, output: RequestOutput | EmbedResult) -> None:
        """An output of it has come. Observers are told before it is booked, so that they see the gap."""
        for observer in self.observers:
            observer.on_output(self, generation, output)
        if isinstance(output, EmbedResult):
            generation.usage = Usage(prompt_tokens=output.prompt_tokens)
            return
        if output.deltas or generation.first_token is None:  # a replay is accepted anew, and knows of no tokens then
            generation.usage = output.usage
        if output.deltas:
            generation.last_token = time.monotonic()
            if generation.first_token is None:
                generation.first_token = generation.last_token
                generation.timings = output.timings
        for delta in output.deltas:
            if delta.finish_reason is not None:
                generation.finish_reasons[delta.index] = delta.finish_reason


class Observer(Protocol):
    """Is told what happens; must be quick, and must not raise."""

    def on_output(self, exchange: Exchange, generation: Generation, output: RequestOutput | EmbedResult) -> None:
        """The output has come, and is not yet booked in `generation`; after the end, where the client left early."""

    def on_end(self, exchange: Exchange) -> None:
        """The last byte was sent, or the client has gone."""


def exchange_of(scope: Scope) -> Exchange:
    """The exchange of a request; one that nobody observes where it came past the middleware below, as batches do."""
    exchange: Exchange | None = scope.get("corral.exchange")
    if exchange is None:
        exchange = Exchange(method=scope.get("method", ""), path=scope.get("path", ""), caller=caller_of(scope))
        scope["corral.exchange"] = exchange
    return exchange


class Exchanges:
    """Middleware, the outermost: gives every request its exchange, and tells the observers of its end."""

    def __init__(self, app: ASGIApp, observers: Sequence[Observer] = ()) -> None:
        self._app = app
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(
            method=scope["method"], path=scope["path"], caller=caller_of(scope), observers=self._observers
        )
        for name, value in scope["headers"]:
            if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
                exchange.request_id = value.decode("ascii")
            elif name in TRACE_HEADERS and len(value) <= MAX_TRACE_HEADER:
                exchange.trace_headers[name.decode("ascii")] = value.decode("latin-1")
        told = exchange.request_id.encode("ascii")
        own_headers = [(REQUEST_ID_HEADER, told), *([(ANTHROPICS_HEADER, told)] if is_anthropic(scope) else [])]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], *own_headers]
            await send(message)
            exchange.is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        scope["corral.exchange"] = exchange
        with about(exchange.request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                logger.exception("%s %s failed", exchange.method, exchange.path[:MAX_SHOWN_PATH])
                if exchange.status:  # the server below cuts the connection of an answer that has not come to its end
                    exchange.cause = exchange.cause or "internal_error"
                else:
                    await error_response(scope, error)(scope, receive, send_with_id)
            finally:
                exchange.forget_names()
                for observer in self._observers:
                    observer.on_end(exchange)
