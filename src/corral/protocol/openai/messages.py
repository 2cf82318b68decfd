"""OpenAI's messages -> those that templates read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_MESSAGES, MAX_PARTS, MAX_TOOL_CALLS
from corral.protocol.fields import StrictModel, show_value, validate

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

# Fields that clients echo from an answer into the next request; empty, they say nothing.
_ECHOED: dict[str, tuple[Any, ...]] = {"annotations": (None, []), "audio": (None,)}
# Templates know "system", which OpenAI renamed for its newer models, and "tool", which it used to call "function".
_ROLE_NAMES = {"developer": "system", "function": "tool"}
_LEGACY_CALL_ID = "call_function"  # `function_call` has no id, and one of its kind at a time


class MessageFields(StrictModel):
    role: str
    content: Any = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Part(StrictModel):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Call(StrictModel):
    function: Any
    id: str | None = None
    type: str | None = None
    index: int | None = None  # of a streamed delta, which clients keep


class _Called(StrictModel):
    name: str
    arguments: str | None = None


def parse_messages(raw: Sequence[Any], ignored: list[str] | None = None) -> list[dict[str, Any]]:
    """The messages as Request.messages wants them.

    Raises:
        InvalidRequest: names the message and the field.
    """
    if not 1 <= len(raw) <= MAX_MESSAGES:
        raise LimitExceeded("messages", len(raw), MAX_MESSAGES, least=1)
    return [_parse_message(f"messages[{i}]", entry, ignored) for i, entry in enumerate(raw)]


def _parse_message(where: str, raw: object, ignored: list[str] | None) -> dict[str, Any]:
    if isinstance(raw, dict):
        for name, neutral in _ECHOED.items():
            if raw.get(name) not in neutral:
                path = f"{where}.{name}"
                raise InvalidRequest(f"{path} is not supported", param=path, code="unsupported_parameter")
        raw = {name: value for name, value in raw.items() if name not in _ECHOED}
    fields = validate(MessageFields, raw, prefix=where, ignored=ignored)
    if fields.role not in ROLES:
        message = f"{where}.role is {show_value(fields.role)}; it must be one of {', '.join(ROLES)}"
        raise InvalidRequest(message, param=f"{where}.role", code="invalid_value")
    calls = _parse_calls(where, fields, ignored)
    if fields.content is None and fields.role != "assistant":
        path = f"{where}.content"
        raise InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
    role = _ROLE_NAMES.get(fields.role, fields.role)
    content = _parse_content(f"{where}.content", fields.content, ignored) or fields.refusal or ""
    message_out: dict[str, Any] = {"role": role, "content": content}
    if fields.name is not None:
        message_out["name"] = fields.name
    if fields.role == "function":
        message_out["tool_call_id"] = _LEGACY_CALL_ID
    if fields.tool_call_id is not None:
        message_out["tool_call_id"] = fields.tool_call_id
    if thinking := fields.reasoning or fields.reasoning_content:
        message_out["thinking"] = thinking
    if calls:
        message_out["tool_calls"] = calls
    return message_out


def _parse_calls(where: str, fields: MessageFields, ignored: list[str] | None) -> list[dict[str, Any]]:
    """The calls of an assistant's message; `function_call` is one of them."""
    for name in ("tool_calls", "function_call"):
        if getattr(fields, name) and fields.role != "assistant":
            path = f"{where}.{name}"
            raise InvalidRequest(f"{path} is only allowed in messages of the assistant", param=path)
    if fields.function_call is not None:
        path = f"{where}.function_call"
        if fields.tool_calls:
            message = f"{where} has tool_calls and function_call; give one of them"
            raise InvalidRequest(message, param=path)
        called = _parse_called(path, fields.function_call, ignored)
        return [{"type": "function", "id": _LEGACY_CALL_ID, "function": called}]
    calls = []
    if len(fields.tool_calls or []) > MAX_TOOL_CALLS:
        raise LimitExceeded(f"{where}.tool_calls", len(fields.tool_calls or []), MAX_TOOL_CALLS)
    for position, raw in enumerate(fields.tool_calls or []):
        path = f"{where}.tool_calls[{position}]"
        call = validate(_Call, raw, prefix=path, ignored=ignored)
        if call.type not in (None, "function"):
            message = f"{path}.type is {show_value(call.type)}; it must be function"
            raise InvalidRequest(message, param=f"{path}.type", code="invalid_value")
        out: dict[str, Any] = {
            "type": "function",
            "function": _parse_called(f"{path}.function", call.function, ignored),
        }
        if call.id is not None:
            out["id"] = call.id
        calls.append(out)
    return calls


def _parse_called(where: str, raw: object, ignored: list[str] | None) -> dict[str, Any]:
    """A call's name and arguments; whether these are JSON is found out where a template reads them."""
    called = validate(_Called, raw, prefix=where, ignored=ignored)
    if not called.name:
        raise InvalidRequest(f"{where}.name is empty", param=f"{where}.name", code="invalid_value")
    return {"name": called.name, "arguments": called.arguments or "{}"}


def _parse_content(where: str, content: object, ignored: list[str] | None) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        message = f"{where} is {show_value(content)}; it must be a string or a list of text parts"
        raise InvalidRequest(message, param=where, code="invalid_type")
    if len(content) > MAX_PARTS:
        raise LimitExceeded(where, len(content), MAX_PARTS, "parts")
    return "\n".join(_parse_part(f"{where}[{i}]", part, ignored) for i, part in enumerate(content))


def _parse_part(where: str, part: object, ignored: list[str] | None) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind not in ("text", "refusal"):
        message = f"{where} is a part of type {show_value(kind)}, which is not supported; only 'text' parts are"
        raise InvalidRequest(message, param=where, code="unsupported_content_type")
    fields = validate(_Part, part, prefix=where, ignored=ignored)
    text = fields.refusal if fields.type == "refusal" else fields.text
    if text is None:
        path = f"{where}.{fields.type}"
        raise InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
    return text
