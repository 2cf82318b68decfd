"""What whoever runs a server looks at: health, metrics, ids, errors, limits."""

from __future__ import annotations

import re
from typing import Any

from corral.compare.engines.replies import at, text, whole
from corral.compare.probes import prometheus
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, judged, partly, passed
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply

_CHAT = "/v1/chat/completions"
_HEALTH = ("/health", "/healthz", "/v1/health", "/ping")
_LIVE, _READY = ("/livez", "/health/live", "/live"), ("/readyz", "/health/ready", "/ready")
_VLLM = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:request_success",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
)
_MEANS = {
    "running requests": r"(requests?_(running|processing|active|in_?flight)|running_requests)",
    "waiting requests": r"(requests?_(waiting|deferred|queued|pending)|queue_(size|length|depth)|waiting_requests)",
    "tokens": r"tokens.*(total|_count)?$",
}
_TTFT = r"(time_to_first_token|ttft|first_token)"
_ID = "corral-probe-7f3a9c"
_OVERFLOW = 2.0  # times the context


def operating_probes() -> list[Probe]:
    return [
        Probe(
            "health",
            "A route that tells whether it is ready, without computing anything; at best another that tells whether it "
            "lives, so that one who is busy or draining is not killed.",
            _health,
        ),
        Probe(
            "metrics",
            "Prometheus' format, with what runs and waits, tokens, and a histogram of the time to the first token.",
            _metrics,
        ),
        Probe(
            "metrics by vLLM's names",
            "Dashboards, autoscalers and routers of inference servers read these names.",
            _vllm_names,
        ),
        Probe(
            "request ids",
            "An id that the client gives in X-Request-ID comes back, so that logs of both sides can be put together.",
            _request_ids,
            150.0,
        ),
        Probe(
            "errors of bad requests",
            "What is malformed or out of range gets a 4xx with a JSON error that says what is wrong, never 5xx.",
            _errors,
            150.0,
        ),
        Probe(
            "prompt longer than the context",
            "A clear 400 that names the limit. Cutting it silently answers another question than was asked.",
            _overflow,
            300.0,
        ),
        Probe(
            "limits can be read",
            "Clients and operators can ask for the context that one request really has, and how many run at once.",
            _limits,
        ),
    ]


async def _health(target: Target) -> Finding:
    seen = {route: await target.ask("GET", route) for route in (*_HEALTH, *_LIVE, *_READY, "/")}
    good = [route for route, reply in seen.items() if reply.is_ok]
    told = ", ".join(f"GET {route} {reply.status or reply.fault}" for route, reply in seen.items())
    dedicated = [route for route in good if route != "/"]
    if not dedicated:
        return partly(f"only / says that it is there; {told}") if good else failed(told)
    both = any(route in good for route in _LIVE) and any(route in good for route in _READY)
    return passed(f"{'' if both else 'living and being ready are one; '}{told}")


async def _exposition(target: Target) -> tuple[Reply, prometheus.Exposition]:
    reply = await target.ask("GET", "/metrics")
    return reply, prometheus.parse(reply.body.decode("utf-8", "replace")) if reply.is_ok else prometheus.Exposition()


async def _metrics(target: Target) -> Finding:
    await target.answer(target.chat(max_tokens=2))  # so that there is something to count
    reply, found = await _exposition(target)
    if not reply.is_ok:
        told = f"GET /metrics: {reply.told()}"
        # A server that says how to have them has them, if not by itself.
        return partly(told) if b"--metrics" in reply.body else failed(told)
    if found.odd or not found.names:
        return failed(f"GET /metrics is not in Prometheus' format: {(found.odd or ['nothing in it'])[0][:160]}")
    histograms = [name for name, kind in found.kinds.items() if kind == "histogram"]
    missing = [what for what, names in _MEANS.items() if not any(re.search(names, name) for name in found.names)]
    if not any(re.search(_TTFT, name) for name in histograms):
        missing.append("a histogram of the time to the first token")
    told = f"GET /metrics: {len(found.kinds)} metrics, {len(histograms)} of them histograms"
    return judged([f"without {', '.join(missing)}"] if missing else [], told, is_partly=True)


async def _vllm_names(target: Target) -> Finding:
    reply, found = await _exposition(target)
    if not reply.is_ok:
        return failed(f"GET /metrics: {reply.told()}")
    there = [name for name in _VLLM if found.has(name)]
    missing = [name for name in _VLLM if name not in there]
    told = f"{len(there)} of {len(_VLLM)}" + (f", without {', '.join(missing)}" if missing else "")
    if not there:
        return failed(f"none of {', '.join(_VLLM)}")
    return partly(told) if missing else passed(told)


async def _request_ids(target: Target) -> Finding:
    body = target.chat(max_tokens=1)
    limit_s = target.patience.answer_s
    reply = await target.ask("POST", _CHAT, body, headers={"X-Request-ID": _ID}, timeout_s=limit_s)
    if not reply.is_ok:
        raise CannotTry(f"a chat: {reply.told()}")
    came = reply.headers.get("x-request-id", "")
    body_id = text(at(reply.json(), "id")) or "none"
    told = f"X-Request-ID: {_ID} was sent; the answer's is {came or 'not there'}; its body's id is {body_id}"
    if came == _ID:
        return passed(told)
    return partly(told) if came else failed(told)


async def _errors(target: Target) -> Finding:
    model = target.model
    messages = [{"role": "user", "content": "Hi"}]
    fine = {"model": model, "messages": messages, "max_tokens": 1}
    bad: dict[str, Any] = {
        "no JSON": b'{"model": ',
        "a list": b"[]",
        "not UTF-8": b'{"model": "\xff\xfe"}',
        "no messages": {"model": model},
        "messages of a wrong kind": {**fine, "messages": "Hi"},
        "a role that is none": {**fine, "messages": [{"role": "probe", "content": "Hi"}]},
        "temperature as a word": {**fine, "temperature": "hot"},
        "negative max_tokens": {**fine, "max_tokens": -7},
        "n of -1": {**fine, "n": -1},
        "deep nesting": b'{"model": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    }
    faults, weak, told = [], [], []
    for name, body in bad.items():
        reply = await target.ask("POST", _CHAT, body, timeout_s=target.patience.answer_s)
        told.append(f"{name} {reply.status or reply.fault}")
        if not reply.status or reply.status >= 500:
            faults.append(f"{name} got {reply.told(80)}")
        elif reply.is_ok:
            weak.append(f"{name} was answered")
        elif not error_text(reply):
            weak.append(f"{name} got no JSON error: {reply.told(60)}")
    found = ", ".join(told)
    return judged([*faults, *weak], found, is_partly=not faults)


def error_text(reply: Reply) -> str:
    """The message of a JSON error of any of the protocols; "" if there is none."""
    told = reply.json()
    detail = at(told, "detail")
    first = at(detail, 0, "msg")
    for value in (at(told, "error", "message"), at(told, "error"), at(told, "message"), detail, first):
        if isinstance(value, str) and value:
            return value
    return ""


async def _overflow(target: Target) -> Finding:
    context = target.settings.context if target.settings else None
    if context is None:
        told = at((await target.ask("GET", "/v1/models")).json(), "data", 0, "max_model_len")
        context = whole(told)
    if not context:
        raise CannotTry("it does not tell how long its context is")
    words = round(context * _OVERFLOW)
    reply = await target.answer(target.chat("word " * words, max_tokens=1))
    told = f"a prompt of {words} words for a context of {context} tokens: {reply.told(200)}"
    if reply.is_ok:
        counted = whole(at(reply.json(), "usage", "prompt_tokens"))
        if counted is not None and counted >= words:
            raise CannotTry(f"it took the whole of it, {counted} tokens, so the context is longer than told")
        return failed(f"answered as if it had read it: {counted} prompt tokens in its usage; {told}")
    if not reply.status or reply.status >= 500:
        return failed(told)
    message = error_text(reply)
    if reply.status in (400, 413, 422) and re.search(r"context|token|length|maximum", message, re.IGNORECASE):
        return passed(told) if str(context) in message else partly(f"the error does not name the limit; {told}")
    return partly(told)


async def _limits(target: Target) -> Finding:
    if target.settings is None:
        raise CannotTry("its settings were not read back")
    context, slots = target.settings.context, target.settings.slots
    told = f"context {context or 'not told'}, slots {slots or 'not told'}"
    page = await target.ask("GET", "/limits")
    if page.is_ok and isinstance(rows := at(page.json(), "data"), list):
        told += f"; GET /limits has {len(rows)} more"
    if context and slots:
        return passed(told)
    return partly(told) if context or slots else failed(told)
