"""One call of /api/generate or /api/chat, from the lease of its model to the last line."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

from corral.errors import ContextLengthExceeded, CorralError
from corral.protocol.ollama.answer import NS_PER_S, AnswerEncoder, Timings, encode_rendered
from corral.protocol.ollama.chat import ChatCall
from corral.protocol.ollama.errors import ollama_error, too_long
from corral.protocol.ollama.generate import GenerateCall
from corral.protocol.sse import place_headers
from corral.request import Request, RequestOutput
from corral.server.exchange import Exchange
from corral.server.fan_out import fan_out
from corral.server.model_defaults import apply
from corral.store.local_model import LocalModel

if TYPE_CHECKING:
    from corral.server.model_manager import ModelManager

logger = logging.getLogger("corral.server")


class Stopwatch:
    """When what happened to a call, in nanoseconds; it runs from its making."""

    def __init__(self) -> None:
        self._started = time.monotonic_ns()
        self._loaded = self._started
        self._first_token = 0
        self.load_ns = 0

    def now_ns(self) -> int:
        """The time of day."""
        return time.time_ns()

    def elapsed_ns(self) -> int:
        return time.monotonic_ns() - self._started

    def loaded(self, load_s: float) -> None:
        """The model is there; where it need not be loaded, its load is what it took to get at it."""
        self._loaded = time.monotonic_ns()
        self.load_ns = round(load_s * NS_PER_S) or self._loaded - self._started

    def saw(self, output: RequestOutput) -> None:
        if output.deltas and not self._first_token:
            self._first_token = time.monotonic_ns()

    def timings(self) -> Timings:
        now = time.monotonic_ns()
        first = self._first_token or now
        return Timings(now - self._started, self.load_ns, first - self._loaded, now - first)


class Answering:
    """Runs the call; its model is held until the answer has ended or nobody reads it any more."""

    def __init__(
        self,
        manager: ModelManager,
        local: LocalModel,
        call: GenerateCall | ChatCall,
        watch: Stopwatch,
        exchange: Exchange,
    ) -> None:
        self._exchange = exchange
        self._manager = manager
        self._local = local
        self._call = call
        self._watch = watch
        self._encoder = AnswerEncoder(call)

    async def load(self) -> None:
        """Only loads the model."""
        async with self._lease() as model:
            self._watch.loaded(model.load_s)

    async def render(self) -> dict[str, Any]:
        """Only the prompt."""
        request = self._request()
        try:
            async with self._lease() as model:
                rendered = await model.render(request)
        except ContextLengthExceeded as error:
            raise too_long(error) from error
        return encode_rendered(self._call, rendered.text, self._watch.now_ns())

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        async with aclosing(self._outputs(self._request())) as outputs:
            async for output in outputs:
                self._encoder.add(output)
        return self._encoder.whole(self._watch.timings(), self._watch.now_ns())

    async def stream(self, held: AsyncExitStack) -> tuple[AsyncGenerator[bytes, None], dict[str, str]]:
        """The answer's lines, once the request has been taken, so that a refusal is still an HTTP status; and headers
        that tell where it waits.

        Args:
            held: gets the model's lease, to be given back when the lines have ended or nobody reads them.
        """
        outputs = await held.enter_async_context(aclosing(self._outputs(self._request())))
        first = await anext(outputs)
        return self._lines(first, outputs), place_headers([first])

    def _request(self) -> Request:
        return apply(self._local, self._call.request(self._local.parameters))

    def _lease(self) -> Any:
        num_ctx = self._call.num_ctx(self._local.parameters)
        return self._manager.lease(self._local, self._exchange, keep_alive=self._call.keep_alive, num_ctx=num_ctx)

    async def _outputs(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        try:
            async with self._lease() as model:
                self._watch.loaded(model.load_s)
                async with aclosing(fan_out(model, [request])) as outputs:
                    async for _, output in outputs:
                        self._watch.saw(output)
                        yield output
        except ContextLengthExceeded as error:
            raise too_long(error) from error

    async def _lines(
        self, first: RequestOutput, outputs: AsyncGenerator[RequestOutput, None]
    ) -> AsyncGenerator[bytes, None]:
        try:
            yield self._encoder.lines(first, self._watch.now_ns())
            async for output in outputs:
                yield self._encoder.lines(output, self._watch.now_ns())
        except CorralError as error:
            # The status line has long been sent; the error is the last line, and no line says "done".
            yield ollama_error(error).naming(self._exchange.request_id).line()
            return
        except Exception as error:
            logger.exception("a stream broke off")
            yield ollama_error(error).naming(self._exchange.request_id).line()
            return
        yield self._encoder.last_line(self._watch.timings(), self._watch.now_ns())
