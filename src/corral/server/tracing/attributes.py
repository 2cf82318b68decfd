"""What a span tells of a request: OpenTelemetry's names for generative models, and those that vLLM sets besides.

Parameters and figures only: never a prompt, an answer, a stop string or a key.
"""

from __future__ import annotations

import time

from corral.request import EmbedRequest, Request
from corral.server.exchange import Exchange, Generation

Value = str | bool | int | float | list[str]

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}


def attributes_of(exchange: Exchange, route: str, cause: str) -> dict[str, Value]:
    """Of the span of the whole request.

    Args:
        route: the path, with its variable parts by name.
        cause: what refused it or broke it off.
    """
    told: dict[str, Value] = {
        "http.request.method": exchange.method,
        "gen_ai.request.id": exchange.request_id,
        "gen_ai.latency.e2e": time.monotonic() - exchange.started,
    }
    if route:
        told["http.route"] = route
    if exchange.status:
        told["http.response.status_code"] = exchange.status
    if cause:
        told["error.type"] = cause
    if exchange.caller.name:
        told["corral.key.name"] = exchange.caller.name
    if exchange.load_s:
        told["corral.load_s"] = exchange.load_s
    if exchange.model:
        told |= {"gen_ai.provider.name": "corral", "gen_ai.response.model": exchange.model}
    if route in _OPERATIONS:
        told["gen_ai.operation.name"] = _OPERATIONS[route]
    if exchange.generations:
        told |= _of_generations(exchange)
    return told


def _of_generations(exchange: Exchange) -> dict[str, Value]:
    generations = exchange.generations
    first = generations[0]
    usages = [each.usage for each in generations]
    prompt, completion = (sum(getattr(u, f"{kind}_tokens") for u in usages) for kind in ("prompt", "completion"))
    told: dict[str, Value] = {
        "gen_ai.request.model": first.request.model or exchange.model,
        "gen_ai.usage.prompt_tokens": prompt,
        "gen_ai.usage.completion_tokens": completion,
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
        "gen_ai.usage.cache_read.input_tokens": sum(usage.cached_tokens for usage in usages),
    }
    if isinstance(first.request, Request):
        told |= _of_sampling(first.request)
        reasons = [each.finish_reasons[index].value for each in generations for index in sorted(each.finish_reasons)]
        told |= {"gen_ai.response.id": first.request.request_id, "gen_ai.response.finish_reasons": reasons}
    elif isinstance(first.request, EmbedRequest) and first.request.dimensions is not None:
        told["gen_ai.embeddings.dimension.count"] = first.request.dimensions
    if replays := sum(each.num_replays for each in generations):
        told["corral.replays"] = replays
    return told | _of_times(exchange, generations)


def _of_sampling(request: Request) -> dict[str, Value]:
    sampling = request.sampling
    told: dict[str, Value | None] = {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k or None,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.n": sampling.n,
        "gen_ai.request.choice.count": sampling.n if sampling.n != 1 else None,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty or None,
        "gen_ai.request.presence_penalty": sampling.presence_penalty or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _of_times(exchange: Exchange, generations: list[Generation]) -> dict[str, Value]:
    """vLLM's latencies, in seconds; of the first answer that began where there are several."""
    begun = [each for each in generations if each.first_token is not None and each.last_token is not None]
    if not begun:
        return {}
    first = min(begun, key=lambda each: each.first_token or 0.0)
    first_token, last_token = first.first_token or 0.0, first.last_token or 0.0
    decode_s = last_token - first_token
    told: dict[str, Value] = {
        "gen_ai.latency.time_to_first_token": first_token - exchange.started,
        "gen_ai.latency.time_in_model_decode": decode_s,
    }
    if first.timings is not None:
        told |= {
            "gen_ai.latency.time_in_queue": first.timings.queue_s,
            "gen_ai.latency.time_in_model_prefill": first.timings.prefill_s,
            "gen_ai.latency.time_in_model_inference": first.timings.prefill_s + decode_s,
        }
    return told
