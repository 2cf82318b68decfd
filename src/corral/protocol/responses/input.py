"""The `input` of OpenAI's Responses API -> messages, and the items as they are stored. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_MESSAGES, MAX_PARTS
from corral.protocol.fields import StrictModel, show_value, validate
from corral.protocol.ids import new_id
from corral.protocol.tool_arguments import read_arguments

ROLES = ("user", "assistant", "system", "developer")

Item = dict[str, Any]
Message = dict[str, Any]


class MessageItem(StrictModel):
    role: str
    content: Any
    type: str | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class TextPart(StrictModel):
    type: str
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class RefusalPart(StrictModel):
    type: str
    refusal: str


class CallItem(StrictModel):
    type: str
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None
    namespace: None = None
    caller: dict[str, Any] | None = None


class OutputItem(StrictModel):
    type: str
    call_id: str
    output: Any
    id: str | None = None
    status: str | None = None
    name: str | None = None
    namespace: None = None
    caller: dict[str, Any] | None = None


class ReasoningItem(StrictModel):
    type: str
    summary: list[Any] | None = None
    content: list[Any] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: str | None = None


class ReferenceItem(StrictModel):
    id: str
    type: str | None = None


_MODELS: dict[str, type[StrictModel]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": OutputItem,
    "reasoning": ReasoningItem,
}
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def list_items(raw: object, ignored: list[str] | None = None) -> list[Item]:
    """The input as a list of items that all have a type and an id; item references stay what they are.

    Raises:
        InvalidRequest: names the field.
    """
    if isinstance(raw, str):
        raw = [{"role": "user", "content": raw}]
    if not isinstance(raw, list):
        message = f"input is {show_value(raw)}; it must be a string or a list of items"
        raise InvalidRequest(message, param="input", code="invalid_type")
    if not 1 <= len(raw) <= MAX_MESSAGES:
        raise LimitExceeded("input", len(raw), MAX_MESSAGES, "items", least=1)
    return [_normal(f"input[{i}]", item, ignored) for i, item in enumerate(raw)]


def _normal(where: str, raw: object, ignored: list[str] | None) -> Item:
    if not isinstance(raw, dict):
        message = f"{where} is {show_value(raw)}; it must be an object"
        raise InvalidRequest(message, param=where, code="invalid_type")
    kind = raw.get("type")
    if kind is None:
        kind = "message" if "role" in raw else "item_reference"
    if kind == "item_reference":
        return {"type": kind, "id": validate(ReferenceItem, raw, prefix=where).id}
    if not isinstance(kind, str) or kind not in _PREFIXES:
        message = f"{where}.type is {show_value(kind)}, which is not supported; allowed: {', '.join(_PREFIXES)}"
        raise InvalidRequest(f"{message}, item_reference", param=f"{where}.type", code="unsupported_item")
    if ignored is not None:  # a lenient server's
        unknown = [name for name in raw if name not in _MODELS[kind].model_fields]
        ignored += [f"{where}.{name[:60]}" for name in unknown]
        raw = {name: value for name, value in raw.items() if name not in unknown}
    item = {**raw, "type": kind, "id": raw.get("id") or new_id(_PREFIXES[kind])}
    _read(where, item)  # what is stored has been read
    if kind == "message" and isinstance(item["content"], str):
        part: Item = {"type": "input_text", "text": item["content"]}
        if item["role"] == "assistant":
            part = {"type": "output_text", "text": item["content"], "annotations": []}
        item["content"] = [part]
    if kind != "reasoning":
        item["status"] = raw.get("status") or "completed"
    return item


def to_messages(items: Sequence[Mapping[str, Any]], where: str = "input") -> list[Message]:
    """The turns that templates know.

    What the model thought, said and called in one go is one message. The output of a call needs its call before it.

    Raises:
        InvalidRequest: names the field.
    """
    turns: list[Message] = []
    names: dict[str, str] = {}
    for index, item in enumerate(items):
        path = f"{where}[{index}]"
        message = _read(path, item)
        if item["type"] == "function_call":
            names[item["call_id"]] = item["name"]
        if message["role"] == "tool":
            name = names.get(message["tool_call_id"])
            if name is None:
                text = (
                    f"{path}.call_id is {show_value(message['tool_call_id'])}; no function_call before it has this id"
                )
                raise InvalidRequest(text, param=f"{path}.call_id", code="invalid_value")
            message |= {"name": name, "tool_name": name}
        _append(turns, message)
    return turns


def _append(turns: list[Message], message: Message) -> None:
    last = turns[-1] if turns else None
    # A turn is one message of text at most: a second one begins the next turn, as it does the model's thinking.
    if last is None or last["role"] != "assistant" or message["role"] != "assistant" or "tool_calls" in last:
        if last is not None and "tool_calls" in last and set(message) == {"role", "content", "tool_calls"}:
            last["tool_calls"] += message["tool_calls"]
            return
        turns.append(message)
    elif message.get("content") and last["content"]:
        turns.append(message)
    else:
        last["content"] = last["content"] or message["content"]
        last.update({name: value for name, value in message.items() if name not in ("role", "content")})


def _read(where: str, item: Mapping[str, Any]) -> Message:
    """One item as a message; that of a call, or of thoughts, has no content."""
    match item["type"]:
        case "message":
            return _read_message(where, validate(MessageItem, item, prefix=where))
        case "function_call":
            call = validate(CallItem, item, prefix=where)
            arguments = read_arguments(call.arguments)
            if arguments is None:
                path = f"{where}.arguments"
                raise InvalidRequest(f"{path} must be the text of a JSON object", param=path, code="invalid_value")
            function = {"name": call.name, "arguments": arguments}
            calls = [{"type": "function", "id": call.call_id, "function": function}]
            return {"role": "assistant", "content": "", "tool_calls": calls}
        case "function_call_output":
            output = validate(OutputItem, item, prefix=where)
            content = _read_content(f"{where}.output", output.output)
            return {"role": "tool", "content": content, "tool_call_id": output.call_id}
    thought = validate(ReasoningItem, item, prefix=where)
    if thought.encrypted_content:
        path = f"{where}.encrypted_content"
        message = f"{path} is not supported: another server has encrypted it; leave the reasoning item out"
        raise InvalidRequest(message, param=path, code="unsupported_parameter")
    texts = _read_content(
        f"{where}.content", thought.content or thought.summary or [], "reasoning_text", "summary_text"
    )
    # Go templates read the first, the others the second.
    return {"role": "assistant", "content": "", "thinking": texts, "reasoning_content": texts}


def _read_message(where: str, fields: MessageItem) -> Message:
    if fields.role not in ROLES:
        message = f"{where}.role is {show_value(fields.role)}; it must be one of {', '.join(ROLES)}"
        raise InvalidRequest(message, param=f"{where}.role", code="invalid_value")
    # Templates know "system"; OpenAI renamed it "developer" for its own newer models.
    role = "system" if fields.role == "developer" else fields.role
    return {"role": role, "content": _read_content(f"{where}.content", fields.content)}


def _read_content(where: str, content: object, *kinds: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        message = f"{where} is {show_value(content)}; it must be a string or a list of parts"
        raise InvalidRequest(message, param=where, code="invalid_type")
    if len(content) > MAX_PARTS:
        raise LimitExceeded(where, len(content), MAX_PARTS, "parts")
    return "\n".join(_read_part(f"{where}[{i}]", part, kinds or _PARTS) for i, part in enumerate(content))


_PARTS = ("input_text", "output_text", "text", "refusal")


def _read_part(where: str, part: object, kinds: tuple[str, ...]) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind not in kinds:
        message = f"{where} is of type {show_value(kind)}, which is not supported: models here take text only"
        raise InvalidRequest(f"{message}; allowed: {', '.join(kinds)}", param=where, code="unsupported_content_type")
    if kind == "refusal":
        return validate(RefusalPart, part, prefix=where).refusal
    return validate(TextPart, part, prefix=where).text
