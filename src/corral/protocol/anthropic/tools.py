"""Anthropic's `tools` and `tool_choice` -> the nouns. Pure."""

from __future__ import annotations

import re
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_TOOLS
from corral.protocol.anthropic.content import Ignored
from corral.protocol.fields import StrictModel, show_value, validate
from corral.tool_call import ToolChoice, ToolMode

CUSTOM = "custom"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MODES = {"auto": ToolMode.AUTO, "any": ToolMode.REQUIRED, "tool": ToolMode.REQUIRED, "none": ToolMode.NONE}
_DIRECT = ("direct",)  # who may call: the model itself


class ToolFields(StrictModel):
    name: str
    input_schema: dict[str, Any]
    type: str | None = None
    description: str | None = None
    strict: bool | None = None
    eager_input_streaming: bool | None = None
    cache_control: dict[str, Any] | None = None  # accepted: every prompt's beginning is cached
    defer_loading: bool | None = None
    allowed_callers: list[Any] | None = None
    input_examples: list[Any] | None = None


class ChoiceFields(StrictModel):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def parse_tools(raw: list[Any], ignored: Ignored = None) -> tuple[list[dict[str, Any]], frozenset[str]]:
    """The tools as templates want them, and the names of those whose input is to be streamed as it is written.

    Raises:
        InvalidRequest: names the field; tools that Anthropic's servers run themselves are refused by name.
    """
    if len(raw) > MAX_TOOLS:
        raise LimitExceeded("tools", len(raw), MAX_TOOLS)
    tools: dict[str, dict[str, Any]] = {}
    eager = set()
    for index, entry in enumerate(raw):
        fields = _read_tool(f"tools[{index}]", entry, ignored)
        if fields.name in tools:
            message = f"tools[{index}].name is {show_value(fields.name)}, as that of an earlier tool"
            raise InvalidRequest(message, param=f"tools[{index}].name", code="invalid_value")
        described = {} if fields.description is None else {"description": fields.description}
        strict = {"strict": True} if fields.strict else {}
        function = {"name": fields.name, **described, "parameters": fields.input_schema, **strict}
        tools[fields.name] = {"type": "function", "function": function}
        if fields.eager_input_streaming:
            eager.add(fields.name)
    return list(tools.values()), frozenset(eager)


def _read_tool(where: str, entry: object, ignored: Ignored) -> ToolFields:
    kind = entry.get("type") if isinstance(entry, dict) else None
    if isinstance(kind, str) and kind != CUSTOM:
        message = f"{where} is of type {kind[:60]!r}, which is not supported; only tools that the client runs are: "
        message += "type 'custom', with a name and an input_schema"
        raise InvalidRequest(message, param=where, code="unsupported_tool")
    fields = validate(ToolFields, entry, prefix=where, ignored=ignored)
    if not _NAME.fullmatch(fields.name):
        path = f"{where}.name"
        message = f"{path} is {show_value(fields.name)}; it must be 1 to 128 letters, digits, '_' and '-'"
        raise InvalidRequest(message, param=path, code="invalid_value")
    if fields.input_schema.get("type") != "object":
        path = f"{where}.input_schema.type"
        message = f"{path} is {show_value(fields.input_schema.get('type'))}; it must be 'object'"
        raise InvalidRequest(message, param=path, code="invalid_value")
    refused = {
        "defer_loading": fields.defer_loading,
        "input_examples": fields.input_examples,
        "allowed_callers": tuple(fields.allowed_callers or _DIRECT) != _DIRECT,
    }
    for name, is_asked in refused.items():
        if is_asked:
            path = f"{where}.{name}"
            raise InvalidRequest(f"{path} is not supported", param=path, code="unsupported_parameter")
    return fields


def parse_choice(raw: object, tool_names: list[str], ignored: Ignored = None) -> ToolChoice:
    """Whether the model has to call.

    Raises:
        InvalidRequest: names the field.
    """
    if raw is None:
        return ToolChoice()
    fields = validate(ChoiceFields, raw, prefix="tool_choice", ignored=ignored)
    if fields.type not in _MODES:
        message = f"tool_choice.type is {show_value(fields.type)}; it must be one of {', '.join(_MODES)}"
        raise InvalidRequest(message, param="tool_choice.type", code="invalid_value")
    if fields.type == "tool" and fields.name not in tool_names:
        message = f"tool_choice.name is {show_value(fields.name)}; it must be the name of one of the tools"
        raise InvalidRequest(message, param="tool_choice.name", code="invalid_value")
    if fields.type != "tool" and fields.name is not None:
        message = "tool_choice.name is only allowed with type 'tool'"
        raise InvalidRequest(message, param="tool_choice.name", code="invalid_value")
    mode = _MODES[fields.type]
    if mode is ToolMode.REQUIRED and not tool_names:
        message = f"tool_choice.type is {show_value(fields.type)}, and the request has no tools"
        raise InvalidRequest(message, param="tool_choice", code="invalid_value")
    names = () if fields.name is None else (fields.name,)
    return ToolChoice(mode, names, is_parallel=not fields.disable_parallel_tool_use)
