"""A client of OpenAI's chat and completion protocols that notes when an answer's text comes."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from corral.compare.answer import Answer
from corral.compare.chunks import Reading
from corral.compare.exchange import ExchangeFailed, Origin, exchange, request_bytes, tls_of
from corral.compare.workload import Call, Message

MOST_CLIENT_CPU = 0.2  # of one core; beyond, the client takes from the server what is to be measured
PATIENCE_S = 600.0

Endpoint = Literal["chat", "completions"]
Now = Callable[[], float]  # seconds since the load began
ROUTES: Mapping[Endpoint, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


class ShapeBody(Protocol):
    """Engine.body: the request as one engine has to be asked it."""

    def __call__(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]: ...


def plain_body(fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
    """As the protocol has it: nothing in it keeps an answer from ending early."""
    return fields


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, and how.

    Args:
        model: by the name that the server knows.
        headers: sent with every request; the key is among them.
        shape: puts in what this engine needs to give an answer's exact length.
        fields: set in every request, over the usual ones; None leaves one out.
        patience_s: how long the server may say nothing.
    """

    origin: Origin
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    endpoint: Endpoint = "chat"
    shape: ShapeBody = plain_body
    fields: Mapping[str, Any] = field(default_factory=dict)
    patience_s: float = PATIENCE_S


def body_of(target: Target, call: Call, before: Sequence[Message], *, is_streamed: bool) -> dict[str, Any]:
    """The request's fields. Greedy, so that every engine has the same text to write.

    Args:
        before: what was said in the conversation so far.
    """
    fields: dict[str, Any] = {"model": target.model}
    if target.endpoint == "chat":
        fields["messages"] = [*before, *call.messages]
    else:
        fields["prompt"] = "\n".join(message["content"] for message in [*before, *call.messages])
    fields |= {"max_tokens": call.max_tokens, "temperature": 0.0, "stream": is_streamed}
    if is_streamed:
        fields["stream_options"] = {"include_usage": True}
    if call.response_format is not None:
        fields["response_format"] = dict(call.response_format)
    fields = target.shape(fields, min_tokens=call.max_tokens if call.is_exact else None)
    return {name: value for name, value in (fields | dict(target.fields)).items() if value is not None}


class Client:
    """Asks one target; a connection for each request, so that none waits for another."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._tls: ssl.SSLContext | None = tls_of(target.origin)

    async def ask(
        self, call: Call, before: Sequence[Message], answer: Answer, now: Now, *, is_streamed: bool = True
    ) -> None:
        """Fills `answer`, whose `scheduled` is set; whatever goes wrong stands in its error."""
        target = self.target
        body = msgspec.json.encode(body_of(target, call, before, is_streamed=is_streamed))
        request = request_bytes(target.origin, ROUTES[target.endpoint], target.headers, body)
        reading = Reading(answer, is_streamed=is_streamed)
        last = now()

        def on_sent() -> None:
            answer.sent = now()

        def on_head(status: int, content_type: str) -> None:
            reading.head(status, content_type, now())

        def on_body(part: bytes) -> bool:
            nonlocal last
            last = now()
            reading.take(part, last)
            return not reading.is_over

        answer.sent = last
        try:
            await exchange(
                target.origin,
                request,
                on_sent=on_sent,
                on_head=on_head,
                on_body=on_body,
                patience_s=target.patience_s,
                tls=self._tls,
            )
            reading.finish()
        except ExchangeFailed as error:
            reading.cut(str(error))
            last = now()
        except BaseException:
            reading.cut("cancelled")
            answer.error = ""  # whoever cancelled says why
            raise
        answer.ended = last
