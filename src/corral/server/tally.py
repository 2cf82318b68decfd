"""The tokens of one request to an engine: promised before they are computed, and booked as they come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType

from corral.errors import CorralError
from corral.protocol.openai.errors import reply_to
from corral.request import EmbedRequest, EmbedResult, Request, RequestOutput, RequestSize
from corral.server.exchange import Exchange, Generation
from corral.server.quotas import Promise, QuotaBook

logger = logging.getLogger("corral.server")


class Tally:
    """Books what a request comes to, in its exchange and on its key's account.

    What was promised beyond that is given back when the block ends, or, where the reader has left, when the worker says
    that nothing more will come: until then it may compute.

    Args:
        num_lost: tokens that count where the reader leaves before any output: nobody knows then what was computed.
    """

    def __init__(
        self, exchange: Exchange, request: Request | EmbedRequest, promise: Promise | None, num_lost: int = 0
    ) -> None:
        self._exchange = exchange
        self._promise = promise
        self.generation: Generation = exchange.begin(request)
        self._num_lost = num_lost
        self._is_left = False

    def saw(self, output: RequestOutput | EmbedResult) -> None:
        """An output has come."""
        self._num_lost = 0
        if self._promise is not None:
            self._promise.spend(_num_tokens(output))
        self._exchange.saw(self.generation, output)

    def on_replay(self) -> None:
        self.generation.num_replays += 1
        self.generation.replayed.append(time.monotonic())
        logger.warning("the worker of %s is lost; a request goes on in the next one", self._exchange.model)

    def on_left(self) -> Callable[[RequestOutput | None], None]:
        """The reader has gone, and the worker has been told."""
        self._is_left = True
        return self._rest

    def _rest(self, output: RequestOutput | None) -> None:
        if output is not None:
            self.saw(output)
        else:
            self._close()

    def _close(self) -> None:
        if self._promise is not None:
            self._promise.close()

    def __enter__(self) -> Tally:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CorralError) and self.generation.first_token is not None:
            self._exchange.cause = reply_to(error).code or "internal_error"  # the status line has long been sent
        if kind is asyncio.CancelledError and self._num_lost:
            self.saw(EmbedResult(self.generation.request.request_id, [], self._num_lost))
        if not self._is_left:
            self._close()


def _num_tokens(output: RequestOutput | EmbedResult) -> int:
    if isinstance(output, EmbedResult):
        return output.prompt_tokens
    return output.usage.prompt_tokens + output.usage.completion_tokens


async def tally_of(
    book: QuotaBook, exchange: Exchange, request: Request, measure: Callable[[Request], Awaitable[RequestSize]]
) -> tuple[Request, Tally]:
    """The request as its key's quotas allow it: where it does not say how long its answers may be, as long as there
    are tokens left.

    Args:
        measure: asks the model's worker.

    Raises:
        QuotaExceeded: they do not.
        CorralError: what refuses the request.
    """
    if not book.is_metered(exchange.caller):
        return request, Tally(exchange, request, None)
    if request.at is None:
        request = replace(request, at=time.time())  # a template that tells the time says the same when it is computed
    size = await measure(request)
    sampling = request.sampling
    may_cut = sampling.max_tokens is None
    promise = book.promise(exchange, size.prompt_tokens, size.max_tokens, sampling.n, may_cut=may_cut)
    if promise.max_tokens < size.max_tokens:
        most = promise.max_tokens
        cut = replace(sampling, max_tokens=most, min_tokens=min(sampling.min_tokens, most))
        request = replace(request, sampling=cut)
    return request, Tally(exchange, request, promise)


async def embed_tally_of(
    book: QuotaBook,
    exchange: Exchange,
    request: EmbedRequest,
    measure: Callable[[EmbedRequest], Awaitable[RequestSize]],
) -> Tally:
    """As `tally_of`, of texts that are to be embedded."""
    if not book.is_metered(exchange.caller):
        return Tally(exchange, request, None)
    size = await measure(request)
    return Tally(exchange, request, book.promise(exchange, size.prompt_tokens), size.prompt_tokens)
