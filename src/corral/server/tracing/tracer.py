"""Spans of requests, made when they have ended and sent by a thread of OpenTelemetry's own."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from corral import __version__
from corral.request import EmbedResult, RequestOutput
from corral.server.access import route_of
from corral.server.exchange import Exchange, Generation
from corral.server.logs.access import QUIET_PATHS, cause_of
from corral.server.tracing.attributes import attributes_of

CLOSE_TIMEOUT_S = 3.0  # for the spans that are not sent yet; a collector that is away holds no stop up for longer
_NS = 1_000_000_000

# What cannot be sent is told by it again and again, with the collector's whole answer.
logging.getLogger("opentelemetry").setLevel(logging.ERROR)


def otlp_exporter(endpoint: str | None) -> SpanExporter:
    """Sends spans to an address; None is what OTEL_EXPORTER_OTLP_* say. Headers and certificates are theirs, too."""
    return OTLPSpanExporter(endpoint=endpoint)


class RequestTracer:
    """An Observer: a span for each request, with those of its phases below it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("corral", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def on_output(self, exchange: Exchange, generation: Generation, output: RequestOutput | EmbedResult) -> None:
        """Says nothing: the generation knows its times."""

    def on_end(self, exchange: Exchange) -> None:
        if exchange.path in QUIET_PATHS:
            return
        route, cause = route_of(exchange.method, exchange.path), cause_of(exchange)
        to_wall_s = time.time() - time.monotonic()
        span = self._tracer.start_span(
            f"{exchange.method} {route}".strip(),
            context=self._propagator.extract(exchange.trace_headers),
            kind=SpanKind.SERVER,
            attributes=attributes_of(exchange, route, cause),
            start_time=_ns(exchange.started + to_wall_s),
        )
        exchange.trace_id = f"{span.get_span_context().trace_id:032x}"
        if span.is_recording():
            self._add_phases(span, exchange, to_wall_s)
            if exchange.status >= 500 or (exchange.cause and exchange.status < 400):
                span.set_status(Status(StatusCode.ERROR, cause))
        span.end(_ns(time.monotonic() + to_wall_s))

    def _add_phases(self, span: Span, exchange: Exchange, to_wall_s: float) -> None:
        below = set_span_in_context(span)
        for name, start, end in phases_of(exchange):
            child = self._tracer.start_span(name, context=below, start_time=_ns(start + to_wall_s))
            child.end(_ns(end + to_wall_s))
        for generation in exchange.generations:
            for at in generation.replayed:
                span.add_event("replay", timestamp=_ns(at + to_wall_s))

    async def close(self) -> None:
        """Sends what is left, for a bounded time. Idempotent."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop has not waited
                loop.call_soon_threadsafe(done.set)

        # A daemon, as no thread of a pool: at its end the process waits for those.
        threading.Thread(target=shut_down, name="corral-traces", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await done.wait()


def phases_of(exchange: Exchange) -> Iterator[tuple[str, float, float]]:
    """What a request went through: name, begin and end, in monotonic seconds."""
    if exchange.load_s and exchange.generations:
        loaded = exchange.generations[0].submitted
        yield "load", loaded - exchange.load_s, loaded
    for generation in exchange.generations:
        if generation.first_token is None or generation.last_token is None:
            continue
        begun = generation.submitted
        if generation.timings is not None:
            begun = max(begun, generation.first_token - generation.timings.prefill_s)
            yield "queue", generation.submitted, begun
        yield "prefill", begun, generation.first_token
        yield "decode", generation.first_token, generation.last_token


def _resource() -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say of this program, and its name where they give none."""
    told = Resource.create()
    if str(told.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        told = told.merge(Resource({SERVICE_NAME: "corral"}))
    return Resource({SERVICE_VERSION: __version__}).merge(told)


def _ns(seconds: float) -> int:
    return round(seconds * _NS)
