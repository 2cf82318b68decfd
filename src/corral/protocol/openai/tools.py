"""Tools and the choice among them, in OpenAI's words -> what a Request says of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_OPENAI_TOOLS
from corral.protocol.fields import StrictModel, show_value, validate
from corral.tool_call import ToolChoice, ToolMode

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


class FunctionFields(StrictModel):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # a schema that cannot be kept to whole is refused


class _Tool(StrictModel):
    type: str
    function: Any = None


class _NamedFunction(StrictModel):
    name: str


class _Choice(StrictModel):
    type: str
    function: Any = None
    name: str | None = None  # as in a tool of the Responses API
    allowed_tools: Any = None


class _AllowedTools(StrictModel):
    mode: str
    tools: list[Any]


def parse_tools(raw: Sequence[Any], *, where: str = "tools", ignored: list[str] | None = None) -> list[dict[str, Any]]:
    """The tools as Request.tools wants them.

    Raises:
        InvalidRequest: names the tool and the field.
    """
    _check_number(where, raw)
    tools = []
    for position, entry in enumerate(raw):
        path = f"{where}[{position}]"
        fields = validate(_Tool, entry, prefix=path, ignored=ignored)
        if fields.type != "function":
            message = f"{path} is of type {show_value(fields.type)}; only tools of type 'function' are supported"
            raise InvalidRequest(message, param=f"{path}.type", code="invalid_value")
        if fields.function is None:
            raise InvalidRequest(
                f"{path}.function is required", param=f"{path}.function", code="missing_required_parameter"
            )
        tools.append(parse_function(fields.function, f"{path}.function", ignored))
    check_names(tools, where)
    return tools


def parse_functions(raw: Sequence[Any], *, ignored: list[str] | None = None) -> list[dict[str, Any]]:
    """The `functions` of old as tools. Raises InvalidRequest."""
    _check_number("functions", raw)
    tools = [parse_function(entry, f"functions[{i}]", ignored) for i, entry in enumerate(raw)]
    check_names(tools, "functions")
    return tools


def parse_function(raw: object, where: str, ignored: list[str] | None = None) -> dict[str, Any]:
    """One tool, of its function's fields. Raises InvalidRequest."""
    fields = validate(FunctionFields, raw, prefix=where, ignored=ignored)
    if not _NAME.fullmatch(fields.name):
        path = f"{where}.name"
        message = f"{path} is {show_value(fields.name)}; it must be 1 to 64 letters, digits, _, - and ."
        raise InvalidRequest(message, param=path, code="invalid_value")
    function: dict[str, Any] = {"name": fields.name, "parameters": fields.parameters or {"type": "object"}}
    if fields.description is not None:
        function["description"] = fields.description
    if fields.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def check_names(tools: Sequence[dict[str, Any]], where: str) -> None:
    """Raises InvalidRequest for two tools of one name: nobody could tell their calls apart."""
    seen: set[str] = set()
    for position, tool in enumerate(tools):
        name = tool["function"]["name"]
        if name in seen:
            message = f"{where}[{position}] has the name {name!r}, which another has already"
            raise InvalidRequest(message, param=f"{where}[{position}]", code="invalid_value")
        seen.add(name)


def parse_tool_choice(
    raw: object,
    tools: Sequence[dict[str, Any]],
    *,
    is_parallel: bool | None = None,
    ignored: list[str] | None = None,
) -> ToolChoice:
    """OpenAI's `tool_choice` and `parallel_tool_calls`.

    none, auto, required, {"type": "function", "function": {"name"}}, {"type": "allowed_tools", "allowed_tools":
    {"mode", "tools"}}; a function's name may stand beside its type too, as in the Responses API.

    Raises:
        InvalidRequest: none of these, or names a tool that is not there.
    """
    choice = replace(ToolChoice(), is_parallel=is_parallel is not False)
    if raw is None or raw == "auto" or raw == "none":
        return replace(choice, mode=ToolMode.NONE) if raw == "none" else choice
    if not tools:
        raise InvalidRequest("tool_choice is only allowed with tools", param="tool_choice")
    if raw == "required":
        return replace(choice, mode=ToolMode.REQUIRED)
    if not isinstance(raw, dict):
        message = f"tool_choice is {show_value(raw)}; it must be none, auto, required, or an object that names a tool"
        raise InvalidRequest(message, param="tool_choice", code="invalid_value")
    fields = validate(_Choice, raw, prefix="tool_choice", ignored=ignored)
    match fields.type:
        case "function":
            name = _name_of(raw, "tool_choice", ignored)
            _check_known(name, tools, "tool_choice.function.name")
            return replace(choice, mode=ToolMode.REQUIRED, names=(name,))
        case "allowed_tools":
            return _allowed(fields.allowed_tools, choice, tools, ignored)
    message = f"tool_choice.type is {show_value(fields.type)}; it must be function or allowed_tools"
    raise InvalidRequest(message, param="tool_choice.type", code="invalid_value")


def parse_function_call(raw: object, tools: Sequence[dict[str, Any]], ignored: list[str] | None = None) -> ToolChoice:
    """The `function_call` of old: none, auto, or {"name"}. One call is all its answers can tell.

    Raises:
        InvalidRequest: none of these, or names a function that is not there.
    """
    choice = ToolChoice(is_parallel=False)
    if raw is None or raw == "auto":
        return choice
    if raw == "none":
        return replace(choice, mode=ToolMode.NONE)
    if not isinstance(raw, dict):
        message = f"function_call is {show_value(raw)}; it must be none, auto, or an object with a function's name"
        raise InvalidRequest(message, param="function_call", code="invalid_value")
    name = validate(_NamedFunction, raw, prefix="function_call", ignored=ignored).name
    _check_known(name, tools, "function_call.name")
    return replace(choice, mode=ToolMode.REQUIRED, names=(name,))


def _allowed(raw: object, choice: ToolChoice, tools: Sequence[dict[str, Any]], ignored: list[str] | None) -> ToolChoice:
    where = "tool_choice.allowed_tools"
    if raw is None:
        raise InvalidRequest(f"{where} is required", param=where, code="missing_required_parameter")
    fields = validate(_AllowedTools, raw, prefix=where, ignored=ignored)
    if fields.mode not in ("auto", "required"):
        message = f"{where}.mode is {show_value(fields.mode)}; it must be auto or required"
        raise InvalidRequest(message, param=f"{where}.mode", code="invalid_value")
    if not 1 <= len(fields.tools) <= MAX_OPENAI_TOOLS:
        raise LimitExceeded(f"{where}.tools", len(fields.tools), MAX_OPENAI_TOOLS, least=1)
    names = []
    for position, tool in enumerate(fields.tools):
        path = f"{where}.tools[{position}]"
        name = _name_of(tool, path, ignored)
        _check_known(name, tools, path)
        names.append(name)
    return replace(choice, mode=ToolMode(fields.mode), names=tuple(dict.fromkeys(names)))


def _name_of(raw: object, where: str, ignored: list[str] | None) -> str:
    """The name in {"type": "function", "function": {"name"}}, or in {"type": "function", "name"}."""
    fields = validate(_Choice, raw, prefix=where, ignored=ignored)
    if fields.type != "function":
        message = f"{where}.type is {show_value(fields.type)}; it must be function"
        raise InvalidRequest(message, param=f"{where}.type", code="invalid_value")
    if fields.name is not None and fields.function is None:
        return fields.name
    if fields.function is None:
        path = f"{where}.function"
        raise InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
    return validate(_NamedFunction, fields.function, prefix=f"{where}.function", ignored=ignored).name


def _check_known(name: str, tools: Sequence[dict[str, Any]], where: str) -> None:
    if all(tool["function"]["name"] != name for tool in tools):
        message = f"{where} is {show_value(name)}; the request has no tool of that name"
        raise InvalidRequest(message, param=where, code="invalid_value")


def _check_number(where: str, raw: Sequence[Any]) -> None:
    if len(raw) > MAX_OPENAI_TOOLS:
        raise LimitExceeded(where, len(raw), MAX_OPENAI_TOOLS)
