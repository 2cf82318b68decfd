"""One HTTP request and its answer: what is known of it, from its first byte to the last one it is answered with.

Whoever counts, measures, logs or bills gets it here: an Observer is told of every output and of the end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from corral.protocol.ids import new_id
from corral.request import EmbedRequest, EmbedResult, FinishReason, Request, RequestOutput, Usage
from corral.server.caller import Caller, caller_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")  # what a client may call its request


@dataclass(eq=False, slots=True)
class Generation:
    """What one request to an engine came to: `n` answers over one prompt, or the vectors of some texts.

    Args:
        submitted, first_token, last_token: monotonic seconds; None before it happened.
        usage: as of the last output.
        finish_reasons: of the answers that have ended, by their index.
        num_replays: how often its worker was lost and it went on in the next one.
    """

    request: Request | EmbedRequest
    submitted: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    last_token: float | None = None
    usage: Usage = field(default_factory=Usage)
    finish_reasons: dict[int, FinishReason] = field(default_factory=dict)
    num_replays: int = 0


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
        cause: the machine-readable code of what refused it or broke it off; "" if nothing did.
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
    management: str = ""
    is_counted: bool = False
    generations: list[Generation] = field(default_factory=list)
    observers: Sequence[Observer] = ()

    def on_account(self, request: Request) -> Request:
        """The request in the caller's name: with its share, its cached prefixes, and the time that it has."""
        caller = self.caller
        return replace(
            request,
            cache_salt=f"{caller.cache_salt}{request.cache_salt}",
            tenant=caller.owner,
            weight=caller.priority,
            deadline=self.deadline,
        )

    def embed_on_account(self, request: EmbedRequest) -> EmbedRequest:
        """As `on_account`; embeddings share no prefixes."""
        return replace(request, tenant=self.caller.owner, weight=self.caller.priority, deadline=self.deadline)

    def begin(self, request: Request | EmbedRequest) -> Generation:
        """A request goes to an engine."""
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

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER, exchange.request_id.encode("ascii"))]
            await send(message)

        scope["corral.exchange"] = exchange
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            for observer in self._observers:
                observer.on_end(exchange)
