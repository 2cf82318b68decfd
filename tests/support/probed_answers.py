"""What a scripted server answers to chats: right, but for the faults that it is told to have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from typing import Any

MODEL = "model"
CREATED = 1_700_000_000
WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima")
HOUSE = '{"colour": "red", "is_big": true}'


def num_tokens(body: dict[str, Any], faults: Set[str]) -> int:
    if "max_completion_tokens" in body and "knows no max_completion_tokens" in faults:
        return 16
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)


def text(body: dict[str, Any], faults: Set[str]) -> str:
    """Words, a token each."""
    if body.get("response_format") and "no schema" not in faults:
        return HOUSE
    said = "".join(f"{WORDS[i % len(WORDS)]}{i} " for i in range(num_tokens(body, faults)))
    for stop in body.get("stop") or []:
        if stop in said and "no stop" not in faults:
            return said[: said.index(stop)] + (stop if "stop is kept" in faults else "")
    return said


def reason(body: dict[str, Any], faults: Set[str]) -> str:
    stopped = body.get("response_format") or any(body.get("stop") or [])
    return "stop" if stopped and "no stop" not in faults else "length"


def usage(body: dict[str, Any], faults: Set[str]) -> dict[str, int]:
    prompt, completion = 3, num_tokens(body, faults)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion + ("usage is wrong" in faults),
    }


def completion(body: dict[str, Any], faults: Set[str]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text(body, faults)}
    ended = reason(body, faults)
    if body.get("tools") and "no tools" not in faults:
        message, ended = {"role": "assistant", "content": None, "tool_calls": [_call(faults)]}, "tool_calls"
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": ended, "logprobs": None}
    if body.get("logprobs") and "no logprobs" not in faults:
        one = {"token": "a", "logprob": -0.5, "bytes": [97]}
        if "logprobs without bytes" in faults:
            one.pop("bytes")
        choice["logprobs"] = {"content": [{**one, "top_logprobs": [one, one]}]}
    count = 1 if "one choice" in faults else int(body.get("n") or 1)
    return {
        "id": "chatcmpl-1",
        "object": "other" if "wrong object" in faults else "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [{**choice, "index": i} for i in range(count)],
        "usage": usage(body, faults),
    }


def _call(faults: Set[str]) -> dict[str, Any]:
    arguments = "{}" if "tools of no schema" in faults else HOUSE
    return {"id": "call_1", "type": "function", "function": {"name": "paint", "arguments": arguments}}


def events(body: dict[str, Any], faults: Set[str]) -> Iterator[bytes]:
    """Of a stream, each as it is sent."""
    number = 0

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        nonlocal number
        number += 1
        chunk = {
            "id": f"chatcmpl-{number}" if "ids change" in faults else "chatcmpl-1",
            "object": "chat.completion" if "wrong chunk object" in faults else "chat.completion.chunk",
            "created": CREATED + (number if "created changes" in faults else 0),
            "model": MODEL,
            "choices": choices,
            **more,
        }
        return b"data: %b\n\n" % json.dumps(chunk).encode()

    def delta(value: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": value, "finish_reason": finish}]

    always = {"usage": usage(body, faults)} if "usage unasked" in faults else {}
    if "no role" not in faults:
        yield event(delta({"role": "assistant", "content": ""}), **always)
    role = {"role": "assistant"} if "role always" in faults else {}
    if body.get("tools") and "no tools" not in faults:
        call = _call(faults)
        arguments = call["function"]["arguments"]
        first = {**call, "index": 0, "function": {"name": "paint", "arguments": arguments[:5]}}
        then: dict[str, Any] = {"index": 0, "function": {"arguments": arguments[5:]}}
        if "name in each part" in faults:
            then["function"]["name"] = "paint"
        yield event(delta({"tool_calls": [first]}))
        yield event(delta({"tool_calls": [then]}))
    else:
        for word in text(body, faults).split(" ")[:-1]:
            yield event(delta({**role, "content": f"{word} "}), **always)
    if "odd event" in faults:
        yield b"data: odd\n\n"
    if "no finish_reason" not in faults:
        yield event(delta({}, reason(body, faults)))
    if "text after the end" in faults:
        yield event(delta({"content": "more"}))
    if (body.get("stream_options") or {}).get("include_usage") and "no usage chunk" not in faults:
        yield event(delta({}) if "usage beside choices" in faults else [], usage=usage(body, faults))
    if "no [DONE]" not in faults:
        yield b"data: [DONE]\n\n"
    if "more after [DONE]" in faults:
        yield event([])
