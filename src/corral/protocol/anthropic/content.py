"""Anthropic's messages and their blocks -> messages as templates want them. Pure."""

from __future__ import annotations

from typing import Any, Literal

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_MESSAGES, MAX_PARTS
from corral.protocol.fields import StrictModel, show_value, validate

ROLES = ("user", "assistant", "system")

Message = dict[str, Any]
Ignored = list[str] | None  # gets the paths of unknown fields; None refuses them


class MessageFields(StrictModel):
    role: str
    content: Any


class _Block(StrictModel):
    cache_control: dict[str, Any] | None = None  # accepted: every prompt's beginning is cached


class TextBlock(_Block):
    type: Literal["text"]
    text: str
    citations: list[Any] | None = None  # accepted: those of an earlier answer, which its text does not need


class ThinkingBlock(StrictModel):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None  # nothing here is signed


class RedactedBlock(StrictModel):
    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(_Block):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: dict[str, Any] | None = None
    toolset_name: None = None


class ToolResultBlock(_Block):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Any = None
    is_error: bool | None = None
    toolset_name: None = None


_BLOCKS: dict[str, dict[str, type[StrictModel]]] = {
    "user": {"text": TextBlock, "tool_result": ToolResultBlock},
    "assistant": {
        "text": TextBlock,
        "thinking": ThinkingBlock,
        "redacted_thinking": RedactedBlock,
        "tool_use": ToolUseBlock,
    },
    "system": {"text": TextBlock},
    "tool_result": {"text": TextBlock},
}


def parse_system(raw: object, ignored: Ignored = None) -> list[Message]:
    """The system message, or none.

    Raises:
        InvalidRequest: names the field.
    """
    text = "" if raw is None else _texts("system", raw, "system", ignored)
    return [{"role": "system", "content": text}] if text else []


def parse_messages(raw: list[Any], ignored: Ignored = None) -> list[Message]:
    """The turns; messages of one role that follow one another are one turn, as Anthropic has it.

    Raises:
        InvalidRequest: names the field.
    """
    if not 1 <= len(raw) <= MAX_MESSAGES:
        raise LimitExceeded("messages", len(raw), MAX_MESSAGES, least=1)
    turns: list[Message] = []
    tools: dict[str, str] = {}  # names by the ids of their calls
    for index, entry in enumerate(raw):
        where = f"messages[{index}]"
        fields = validate(MessageFields, entry, prefix=where, ignored=ignored)
        if fields.role not in ROLES:
            message = f"{where}.role is {show_value(fields.role)}; it must be one of {', '.join(ROLES)}"
            raise InvalidRequest(message, param=f"{where}.role", code="invalid_value")
        is_last = index == len(raw) - 1
        if fields.content in ("", []) and not (is_last and fields.role == "assistant"):
            path = f"{where}.content"
            raise InvalidRequest(f"{path} is empty; only the last message, of the assistant, may be", param=path)
        for message_out in _read_message(f"{where}.content", fields, tools, ignored):
            _append(turns, message_out)
    return turns


def _read_message(where: str, fields: MessageFields, tools: dict[str, str], ignored: Ignored) -> list[Message]:
    if fields.role == "system" or isinstance(fields.content, str):
        return [{"role": fields.role, "content": _texts(where, fields.content, "system", ignored)}]
    blocks = [
        _read_block(f"{where}[{i}]", block, fields.role, ignored)
        for i, block in enumerate(_listed(where, fields.content))
    ]
    if fields.role == "assistant":
        return _assistant(blocks, tools)
    return [_user(f"{where}[{i}]", block, tools, ignored) for i, block in enumerate(blocks)]


def _listed(where: str, content: object) -> list[Any]:
    if isinstance(content, list):
        if len(content) > MAX_PARTS:
            raise LimitExceeded(where, len(content), MAX_PARTS, "blocks")
        return content
    message = f"{where} is {show_value(content)}; it must be a string or a list of blocks"
    raise InvalidRequest(message, param=where, code="invalid_type")


def _read_block(where: str, block: object, role: str, ignored: Ignored) -> StrictModel:
    known = _BLOCKS[role]
    kind = block.get("type") if isinstance(block, dict) else None
    if isinstance(kind, str) and kind not in known:
        other = any(kind in blocks for blocks in _BLOCKS.values())
        reason = "is not allowed here" if other else "is not supported: models here take text only"
        message = f"{where} is a block of type {kind[:60]!r}, which {reason}; allowed: {', '.join(known)}"
        raise InvalidRequest(message, param=where, code="unsupported_content_type")
    return validate(known[kind] if isinstance(kind, str) else TextBlock, block, prefix=where, ignored=ignored)


def _texts(where: str, content: object, kind: str, ignored: Ignored) -> str:
    """A text, or the blocks of one."""
    if isinstance(content, str):
        return content
    blocks = [_read_block(f"{where}[{i}]", block, kind, ignored) for i, block in enumerate(_listed(where, content))]
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock))


def _assistant(blocks: list[StrictModel], tools: dict[str, str]) -> list[Message]:
    # What is redacted only Anthropic's models can read.
    message: Message = {
        "role": "assistant",
        "content": "\n".join(block.text for block in blocks if isinstance(block, TextBlock)),
    }
    if thoughts := [block.thinking for block in blocks if isinstance(block, ThinkingBlock) and block.thinking]:
        message["thinking"] = "\n".join(thoughts)
    if uses := [block for block in blocks if isinstance(block, ToolUseBlock)]:
        tools.update((use.id, use.name) for use in uses)
        message["tool_calls"] = [
            {"type": "function", "id": use.id, "function": {"name": use.name, "arguments": use.input}} for use in uses
        ]
    return [message]


def _user(where: str, block: StrictModel, tools: dict[str, str], ignored: Ignored) -> Message:
    if isinstance(block, TextBlock):
        return {"role": "user", "content": block.text}
    if not isinstance(block, ToolResultBlock):
        raise InvalidRequest(f"{where} is of a type that a user's message cannot hold", param=where)
    name = tools.get(block.tool_use_id)
    if name is None:
        path = f"{where}.tool_use_id"
        message = f"{path} is {show_value(block.tool_use_id)}; no tool_use block before it has this id"
        raise InvalidRequest(message, param=path, code="invalid_value")
    content = "" if block.content is None else _texts(f"{where}.content", block.content, "tool_result", ignored)
    if block.is_error and not content.lower().startswith("error"):
        content = f"Error: {content}"  # templates have no field for it
    return {"role": "tool", "content": content, "tool_call_id": block.tool_use_id, "name": name, "tool_name": name}


def _append(turns: list[Message], message: Message) -> None:
    last = turns[-1] if turns else None
    if last is None or last["role"] != message["role"] or message["role"] == "tool":
        turns.append(message)
        return
    last["content"] = "\n".join(text for text in (last["content"], message["content"]) if text)
    if thinking := message.get("thinking"):
        last["thinking"] = "\n".join(filter(None, (last.get("thinking"), thinking)))
    if calls := message.get("tool_calls"):
        last["tool_calls"] = [*last.get("tool_calls", ()), *calls]
