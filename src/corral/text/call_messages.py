"""Calls, their results and thinking in earlier messages -> what Jinja's chat templates expect of them."""

from __future__ import annotations

import json
import re
from typing import Any

from corral.errors import InvalidRequest

_THINKING = ("reasoning_content", "thinking", "reasoning")  # one thing, by whoever wrote the template
_ID_LENGTH = 9  # of Mistral's ids, whose templates refuse any other


def with_calls(messages: list[dict[str, Any]], *, as_text: bool, short_ids: bool) -> list[dict[str, Any]]:
    """The messages with the fields that templates read.

    Args:
        as_text: the arguments of calls are to be JSON's text; otherwise they are objects.
        short_ids: ids of calls are to have nine characters.

    Raises:
        InvalidRequest: a call is malformed; says which.
    """
    names: dict[str, str] = {}  # of calls, by id
    unanswered: list[tuple[str, str]] = []  # (id, name) of calls whose results have not come
    result: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        message = _with_thinking(message)
        if message.get("tool_calls"):
            calls = _calls(message["tool_calls"], f"messages[{index}].tool_calls", as_text=as_text)
            unanswered = [(str(call.get("id") or ""), call["function"]["name"]) for call in calls]
            names.update(unanswered)
            message = {"content": None, **message, "tool_calls": calls}
        elif message["role"] == "tool":
            message = _with_origin(message, names, unanswered)
        result.append(_with_short_ids(message, len(result)) if short_ids else message)
    return result


def _with_thinking(message: dict[str, Any]) -> dict[str, Any]:
    thinking = next((text for key in _THINKING if isinstance(text := message.get(key), str) and text), None)
    return message if thinking is None else {**message, **dict.fromkeys(_THINKING, thinking)}


def _calls(calls: Any, where: str, *, as_text: bool) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise InvalidRequest(f"{where} must be a list of calls", param="messages")
    return [_call(call, f"{where}[{number}]", as_text=as_text) for number, call in enumerate(calls)]


def _call(call: Any, where: str, *, as_text: bool) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where} must be an object with a function that has a name", param="messages")
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        arguments = {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"{where}.function.arguments must be a JSON object, or the text of one", param="messages")
    if as_text:
        given = function.get("arguments")
        arguments = given if isinstance(given, str) and given else json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", **call, "function": {**function, "arguments": arguments}}


def _with_origin(message: dict[str, Any], names: dict[str, str], unanswered: list[tuple[str, str]]) -> dict[str, Any]:
    """A result with the name and id of its call, where the client gave one of them or relied on the order."""
    call_id = message.get("tool_call_id")
    name = message.get("name") or message.get("tool_name") or (names.get(call_id) if isinstance(call_id, str) else None)
    place = None
    for index, (known, called) in enumerate(unanswered):
        if (call_id or known) == known and (name or called) == called:
            place = index
            break
    if place is not None:
        known, called = unanswered.pop(place)
        call_id, name = call_id or known, name or called
    filled = {"name": name, "tool_name": name, "tool_call_id": call_id}
    return {**message, **{key: value for key, value in filled.items() if value}}


def _with_short_ids(message: dict[str, Any], position: int) -> dict[str, Any]:
    if "tool_calls" in message and isinstance(message["tool_calls"], list):
        calls = [
            {**call, "id": _short_id(call.get("id"), f"{position}x{number}")}
            for number, call in enumerate(message["tool_calls"])
        ]
        return {**message, "tool_calls": calls}
    if message["role"] == "tool":
        return {**message, "tool_call_id": _short_id(message.get("tool_call_id"), str(position))}
    return message


def _short_id(call_id: Any, otherwise: str) -> str:
    text = re.sub(r"[^a-zA-Z0-9]", "", call_id) if isinstance(call_id, str) else ""
    return (text or otherwise)[-_ID_LENGTH:].rjust(_ID_LENGTH, "0")
