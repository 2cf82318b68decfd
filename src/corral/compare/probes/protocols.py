"""The other protocols that clients speak, where an engine has their routes."""

from __future__ import annotations

import json
from typing import Any

from corral.compare.engines.replies import at, objects, text, whole
from corral.compare.events import EventParser
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, judged
from corral.compare.probes.streamed import usage_faults
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply, line_of

_HELLO = [{"role": "user", "content": "Say hello."}]
_LIMIT_S = 300.0
_NOT_THERE = {0, 404, 405, 501}


def protocol_probes() -> list[Probe]:
    return [
        Probe(
            "/v1/completions",
            "Text, finish_reason and a usage that adds up, for clients of the older protocol.",
            _completions,
            _LIMIT_S,
        ),
        Probe(
            "/v1/responses",
            "A response with output text and usage, and events that end with response.completed.",
            _responses,
            _LIMIT_S,
        ),
        Probe(
            "Anthropic's /v1/messages",
            "A message with content, stop_reason and usage; events in their order.",
            _messages,
            _LIMIT_S,
        ),
        Probe(
            "Ollama's /api/chat",
            "Lines of JSON, the last with done, its reason and counts; tags list the model.",
            _ollama,
            _LIMIT_S,
        ),
    ]


def _check_there(route: str, reply: Reply) -> None:
    if reply.status in _NOT_THERE:
        raise CannotTry(f"it has no such route; POST {route}: {reply.told(80)}")


async def _completions(target: Target) -> Finding:
    route = "/v1/completions"
    body = {"model": target.model, "prompt": "One, two,", "max_tokens": 4, "temperature": 0}
    reply = await target.answer(body, route)
    _check_there(route, reply)
    told = reply.json()
    faults = usage_faults(at(told, "usage"))
    if not text(at(told, "choices", 0, "text")):
        faults.append("no text")
    if at(told, "choices", 0, "finish_reason") not in ("stop", "length"):
        faults.append("no finish_reason")
    if at(told, "object") != "text_completion":
        faults.append(f"object is {at(told, 'object')}")
    return judged(faults if reply.is_ok else ["refused"], f"POST {route}: {reply.told()}")


async def _responses(target: Target) -> Finding:
    route = "/v1/responses"
    body = {"model": target.model, "input": "Say hello.", "max_output_tokens": 16, "temperature": 0}
    reply = await target.answer(body, route)
    _check_there(route, reply)
    if not reply.is_ok:
        return failed(f"POST {route}: {reply.told()}")
    told = reply.json()
    parts = [part for item in objects(at(told, "output")) for part in objects(item.get("content"))]
    faults = []
    if at(told, "object") != "response" or not text(at(told, "id")):
        faults.append("it is no response object")
    if not any(text(part.get("text")) for part in parts):
        faults.append("no text in its output")
    if not whole(at(told, "usage", "output_tokens")):
        faults.append("no usage")
    events = await _events(target, route, body)
    kinds = [text(event.get("type")) or "none" for event in events]
    if not kinds or kinds[0] != "response.created" or kinds[-1] not in ("response.completed", "response.incomplete"):
        faults.append(f"events go from {kinds[0] if kinds else 'none'} to {kinds[-1] if kinds else 'none'}")
    elif "response.output_text.delta" not in kinds:
        faults.append("no event has text")
    return judged(faults, f"POST {route}: {reply.told(120)}; streamed: {len(kinds)} events")


async def _messages(target: Target) -> Finding:
    route = "/v1/messages"
    body = {"model": target.model, "messages": _HELLO, "max_tokens": 8, "temperature": 0}
    headers = {"anthropic-version": "2023-06-01", **({"x-api-key": target.key} if target.key else {})}
    limit_s = target.patience.answer_s
    reply = await target.ask("POST", route, body, headers=headers, timeout_s=limit_s)
    _check_there(route, reply)
    if not reply.is_ok:
        return failed(f"POST {route}: {reply.told()}")
    told = reply.json()
    faults = []
    if at(told, "type") != "message" or at(told, "role") != "assistant":
        faults.append("it is no message of the assistant")
    if not objects(at(told, "content")):
        faults.append("no content")
    if at(told, "stop_reason") not in ("end_turn", "max_tokens"):
        faults.append(f"stop_reason is {at(told, 'stop_reason')}")
    if whole(at(told, "usage", "input_tokens")) is None or not whole(at(told, "usage", "output_tokens")):
        faults.append("no usage")
    events = await _events(target, route, body, headers)
    kinds = [kind for event in events if (kind := text(event.get("type")) or "none") != "ping"]
    order = list(dict.fromkeys(kinds))
    expected = [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
        "message_stop",
    ]
    if order != expected:
        faults.append(f"events come as {', '.join(order) or 'none'}")
    return judged(faults, f"POST {route}: {reply.told(120)}; streamed: {len(kinds)} events")


async def _events(
    target: Target, route: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    streamed = {**body, "stream": True}
    reply = await target.ask("POST", route, streamed, headers=headers, timeout_s=target.patience.answer_s)
    found = []
    for event in EventParser().feed(reply.body):
        try:
            parsed = json.loads(event)
        except (ValueError, RecursionError):
            continue
        if isinstance(parsed, dict):
            found.append(parsed)
    return found


async def _ollama(target: Target) -> Finding:
    route = "/api/chat"
    body = {"model": target.model, "messages": _HELLO, "options": {"num_predict": 6, "temperature": 0}}
    reply = await target.answer(body, route)
    _check_there(route, reply)
    if not reply.is_ok:
        return failed(f"POST {route}: {reply.told()}")
    lines = reply.body.splitlines()
    parsed = [value for line in lines if isinstance(value := _json(line), dict)]
    if reply.headers.get("content-type", "").startswith("text/event-stream") or len(parsed) != len(lines):
        return failed(f"POST {route} is not answered in Ollama's lines of JSON: {reply.told()}")
    last = parsed[-1] if parsed else {}
    faults = []
    if last.get("done") is not True or any(line.get("done") for line in parsed[:-1]):
        faults.append("done is not in the last line alone")
    missing = [
        name for name in ("done_reason", "total_duration", "prompt_eval_count", "eval_count") if not last.get(name)
    ]
    if missing:
        faults.append(f"the last line is without {', '.join(missing)}")
    if not any(text(at(line, "message", "content")) for line in parsed):
        faults.append("no text")
    tags = await target.ask("GET", "/api/tags")
    names = [text(model.get("name")) or "" for model in objects(at(tags.json(), "models"))]
    if not any(name.removesuffix(":latest") == target.model.removesuffix(":latest") for name in names):
        faults.append(f"GET /api/tags has {', '.join(names[:5]) or 'none'}")
    return judged(faults, f"POST {route}: {len(parsed)} lines, the last {line_of(str(last), 200)}")


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
