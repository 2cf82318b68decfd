"""Messages and tools of a request -> the values that Ollama's templates expect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from corral.text.go_template.values import JsonList, JsonMap, Struct


def collate(messages: Iterable[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """All system texts, and the messages with neighbours of one role joined, but for those of tools."""
    system: list[str] = []
    collated: list[dict[str, Any]] = []
    for message in messages:
        content = message.get("content") or ""
        if message["role"] == "system":
            system.append(content)
        if collated and collated[-1]["role"] == message["role"] != "tool":
            collated[-1]["content"] += "\n\n" + content
        else:
            collated.append({**message, "content": content})
    return "\n\n".join(system), collated


def message_of(message: Mapping[str, Any]) -> Struct:
    """api.Message."""
    calls = [_tool_call_of(number, call) for number, call in enumerate(_list(message.get("tool_calls")))]
    thinking = message.get("thinking") or message.get("reasoning_content") or ""
    fields = {
        "Role": message["role"],
        "Content": message.get("content") or "",
        "Thinking": thinking if isinstance(thinking, str) else "",
        "Images": _list(message.get("images")),
        "ToolCalls": calls,
        "ToolName": _text(message.get("tool_name") or message.get("name")),
        "ToolCallID": _text(message.get("tool_call_id")),
    }
    known = {
        "thinking": fields["Thinking"],
        "images": fields["Images"],
        "tool_calls": [call.json_value for call in calls],
        "tool_name": fields["ToolName"],
        "tool_call_id": fields["ToolCallID"],
    }
    filled = {key: value for key, value in known.items() if value}
    return Struct("message", fields, {"role": fields["Role"], "content": fields["Content"], **filled})


def _tool_call_of(number: int, call: Any) -> Struct:
    function = _map(_map(call).get("function"))
    arguments = function.get("arguments")
    if isinstance(arguments, str):  # as OpenAI's clients write them
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = {}
    index = function.get("index")
    fields = {
        "Index": index if isinstance(index, int) else number,
        "Name": _text(function.get("name")),
        "Arguments": JsonMap(_map(arguments)),
    }
    inner = Struct("tool call's function", fields, {"name": fields["Name"], "arguments": fields["Arguments"]})
    identifier = _text(_map(call).get("id"))
    shown = {"id": identifier} if identifier else {}
    return Struct("tool call", {"ID": identifier, "Function": inner}, {**shown, "function": inner.json_value})


def tools_of(tools: Any) -> JsonList:
    """api.Tools; each is written with all that the client said of it."""
    return JsonList(_tool_of(_map(tool)) for tool in _list(tools))


def _tool_of(tool: Mapping[str, Any]) -> Struct:
    function = _map(tool.get("function"))
    parameters = _map(function.get("parameters"))
    inner = Struct(
        "tool's parameters",
        {
            "Type": _text(parameters.get("type")),
            "Defs": parameters.get("$defs"),
            "Items": parameters.get("items"),
            "Required": _list(parameters.get("required")),
            "Properties": _properties_of(parameters.get("properties")),
        },
        parameters,
        prints_json=True,
    )
    fields = {
        "Name": _text(function.get("name")),
        "Description": _text(function.get("description")),
        "Parameters": inner,
    }
    whole = {
        "Type": _text(tool.get("type")),
        "Items": tool.get("items"),
        "Function": Struct("tool's function", fields, function, prints_json=True),
    }
    return Struct("tool", whole, tool, prints_json=True)


def _properties_of(properties: Any) -> dict[str, Any]:
    return {name: _property_of(_map(value)) for name, value in _map(properties).items()}


def _property_of(value: Mapping[str, Any]) -> Struct:
    kind = value.get("type")
    kind = kind[0] if isinstance(kind, list) and len(kind) == 1 else kind
    fields = {
        "AnyOf": [_property_of(_map(each)) for each in _list(value.get("anyOf"))],
        "Type": kind if isinstance(kind, str | list) else "",
        "Items": value.get("items"),
        "Description": _text(value.get("description")),
        "Enum": _list(value.get("enum")),
        "Properties": _properties_of(value.get("properties")),
    }
    return Struct("tool's property", fields, value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
