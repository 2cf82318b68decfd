"""Books what requests come to."""

from __future__ import annotations

import time

from corral.request import EmbedResult, FinishReason, Request, RequestOutput, Usage
from corral.server.access import route_of
from corral.server.exchange import Exchange, Generation
from corral.server.lifecycle import PROBE_PATHS
from corral.server.logs.access import cause_of
from corral.server.metrics.books import Books, ModelBook
from corral.server.replies import is_messages, is_native

UNKNOWN_ROUTE = "none"  # what no route answers; its paths are the clients' own, so they are not told apart
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
OTHER_METHOD = "other"
GONE = 499


class MetricsRecorder:
    """An Observer."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def on_output(self, exchange: Exchange, generation: Generation, output: RequestOutput | EmbedResult) -> None:
        model = self._books.of_model(exchange.model)
        self._book_tokens(exchange, model, generation.usage, output)
        if isinstance(output, EmbedResult) or not output.deltas:
            return
        now = time.monotonic()
        if generation.last_token is None:
            model.first_token_s.add(now - exchange.started)
            if output.timings is not None:
                model.queue_s.add(output.timings.queue_s)
                model.prefill_s.add(output.timings.prefill_s)
        else:
            model.gap_s.add(now - generation.last_token)

    def _book_tokens(
        self, exchange: Exchange, model: ModelBook, before: Usage, output: RequestOutput | EmbedResult
    ) -> None:
        after = Usage(output.prompt_tokens) if isinstance(output, EmbedResult) else output.usage
        # A request that goes on in another worker is taken there anew, which is no use.
        prompt = max(0, after.prompt_tokens - before.prompt_tokens)
        cached = max(0, after.cached_tokens - before.cached_tokens)
        generated = max(0, after.completion_tokens - before.completion_tokens)
        key = self._books.of_key(exchange.caller.name)
        model.prompt_tokens += prompt
        model.cached_tokens += cached
        model.generated_tokens += generated
        key.prompt_tokens += prompt
        key.cached_tokens += cached
        key.generated_tokens += generated

    def on_end(self, exchange: Exchange) -> None:
        now = time.monotonic()
        method = exchange.method if exchange.method in METHODS else OTHER_METHOD
        is_probe = exchange.path in PROBE_PATHS
        route = exchange.path if is_probe else route_of(exchange.method, exchange.path) or UNKNOWN_ROUTE
        self._books.answered(route, method, exchange.status or GONE, now - exchange.started)
        if exchange.is_counted:
            self._books.of_key(exchange.caller.name).requests += 1
        if cause := cause_of(exchange):
            self._books.refusals[cause, _protocol_of(exchange.path)] += 1
        for generation in exchange.generations:
            self._book_end(exchange, generation, now)

    def _book_end(self, exchange: Exchange, generation: Generation, now: float) -> None:
        model = self._books.of_model(exchange.model)
        model.num_replays += generation.num_replays
        request, usage = generation.request, generation.usage
        if not isinstance(request, Request):
            model.request_prompt_tokens.add(usage.prompt_tokens)
            model.computed_prompt_tokens.add(usage.prompt_tokens)
            model.latency_s.add(now - exchange.started)
            return
        num_answers = request.sampling.n
        reasons = [generation.finish_reasons.get(index) for index in range(num_answers)]
        for reason in reasons:
            model.ends[_word_of(reason, exchange)] += 1
        # Where one was given up, the times are those of its client's patience; the worker may have told the end or not.
        if None in reasons or FinishReason.ABORT in reasons:
            return
        model.latency_s.add(now - exchange.started)
        model.request_prompt_tokens.add(usage.prompt_tokens)
        model.computed_prompt_tokens.add(usage.prompt_tokens - usage.cached_tokens)
        model.request_generated_tokens.add(usage.completion_tokens)
        model.max_generated_tokens.add(-(-usage.completion_tokens // num_answers))
        model.num_answers.add(num_answers)
        if request.sampling.max_tokens is not None:
            model.asked_max_tokens.add(request.sampling.max_tokens)
        if generation.first_token is None or generation.last_token is None:
            return
        decode_s = generation.last_token - generation.first_token
        model.decode_s.add(decode_s)
        if generation.timings is not None:
            model.inference_s.add(generation.timings.prefill_s + decode_s)
        if usage.completion_tokens > num_answers:
            model.token_s.add(decode_s / (usage.completion_tokens / num_answers - 1))


def _protocol_of(path: str) -> str:
    """Whose API a path belongs to."""
    if is_native(path):
        return "ollama"
    if is_messages(path):
        return "anthropic"
    return "openai" if path.startswith("/v1/") else "corral"


def _word_of(reason: FinishReason | None, exchange: Exchange) -> str:
    """vLLM's words."""
    if reason is None:
        return "error" if exchange.cause or exchange.refusal else "abort"
    return "stop" if reason is FinishReason.TOOL_CALLS else reason.value
