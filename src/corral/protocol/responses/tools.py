"""`tools`, `tool_choice` and `text` of OpenAI's Responses API -> the nouns. Pure."""

from __future__ import annotations

import re
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.grammar import Grammar, GrammarKind
from corral.limits import MAX_TOOLS
from corral.protocol.fields import StrictModel, show_value, validate
from corral.protocol.openai.format import schema_grammar
from corral.tool_call import ToolChoice, ToolMode

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MODES = {"auto": ToolMode.AUTO, "none": ToolMode.NONE, "required": ToolMode.REQUIRED}


class FunctionFields(StrictModel):
    type: str
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # a schema that cannot be kept to whole is refused
    defer_loading: bool | None = None
    allowed_callers: list[Any] | None = None
    output_schema: dict[str, Any] | None = None


class ChoiceFields(StrictModel):
    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[Any] | None = None


class TextFields(StrictModel):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class FormatFields(StrictModel):
    type: str
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = None
    strict: bool | None = None


def parse_tools(raw: list[Any], ignored: list[str] | None = None) -> list[dict[str, Any]]:
    """The tools as templates want them.

    Raises:
        InvalidRequest: names the field; a tool that is no function is refused by its type.
    """
    if len(raw) > MAX_TOOLS:
        raise LimitExceeded("tools", len(raw), MAX_TOOLS)
    tools: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(raw):
        fields = _read_tool(f"tools[{index}]", entry, ignored)
        if fields.name in tools:
            path = f"tools[{index}].name"
            message = f"{path} is {show_value(fields.name)}, as that of an earlier tool"
            raise InvalidRequest(message, param=path, code="invalid_value")
        described = {} if fields.description is None else {"description": fields.description}
        parameters = fields.parameters or {"type": "object", "properties": {}}
        strict = {"strict": True} if fields.strict else {}
        function = {"name": fields.name, **described, "parameters": parameters, **strict}
        tools[fields.name] = {"type": "function", "function": function}
    return list(tools.values())


def _read_tool(where: str, entry: object, ignored: list[str] | None) -> FunctionFields:
    kind = entry.get("type") if isinstance(entry, dict) else None
    if isinstance(kind, str) and kind != "function":
        message = f"{where} is of type {show_value(kind)}, which is not supported; only functions are"
        raise InvalidRequest(message, param=where, code="unsupported_tool")
    fields = validate(FunctionFields, entry, prefix=where, ignored=ignored)
    if not _NAME.fullmatch(fields.name):
        path = f"{where}.name"
        message = f"{path} is {show_value(fields.name)}; it must be 1 to 128 letters, digits, '_' and '-'"
        raise InvalidRequest(message, param=path, code="invalid_value")
    if fields.defer_loading or (fields.allowed_callers or ["direct"]) != ["direct"]:
        path = f"{where}.{'defer_loading' if fields.defer_loading else 'allowed_callers'}"
        raise InvalidRequest(f"{path} is not supported", param=path, code="unsupported_parameter")
    return fields


def parse_choice(raw: object, names: list[str], *, is_parallel: bool, ignored: list[str] | None = None) -> ToolChoice:
    """Whether the model has to call one of the tools called `names`.

    Raises:
        InvalidRequest: names the field.
    """
    chosen: tuple[str, ...] = ()
    if raw is None or isinstance(raw, str):
        mode = _mode("tool_choice", "auto" if raw is None else raw)
    else:
        mode, chosen = _read_choice(validate(ChoiceFields, raw, prefix="tool_choice", ignored=ignored), ignored)
    for name in chosen:
        if name not in names:
            message = f"tool_choice names {show_value(name)}; it must be one of the tools"
            raise InvalidRequest(message, param="tool_choice", code="invalid_value")
    if mode is ToolMode.REQUIRED and not names:
        raise InvalidRequest("tool_choice wants a call, and the request has no tools", param="tool_choice")
    return ToolChoice(mode, chosen, is_parallel=is_parallel)


def _mode(where: str, name: object) -> ToolMode:
    if isinstance(name, str) and name in _MODES:
        return _MODES[name]
    message = f"{where} is {show_value(name)}; it must be one of {', '.join(_MODES)}"
    raise InvalidRequest(message, param=where, code="invalid_value")


def _read_choice(fields: ChoiceFields, ignored: list[str] | None) -> tuple[ToolMode, tuple[str, ...]]:
    match fields.type:
        case "function":
            if fields.name is None:
                raise InvalidRequest("tool_choice.name is required", param="tool_choice.name")
            return ToolMode.REQUIRED, (fields.name,)
        case "allowed_tools":
            names = tuple(
                _allowed(f"tool_choice.tools[{i}]", tool, ignored) for i, tool in enumerate(fields.tools or [])
            )
            if not names:
                raise InvalidRequest(
                    "tool_choice.tools is empty; it needs one tool at least", param="tool_choice.tools"
                )
            return _mode("tool_choice.mode", fields.mode), names
    message = f"tool_choice.type is {show_value(fields.type)}; it must be function or allowed_tools"
    raise InvalidRequest(message, param="tool_choice.type", code="invalid_value")


def _allowed(where: str, raw: object, ignored: list[str] | None) -> str:
    fields = validate(ChoiceFields, raw, prefix=where, ignored=ignored)
    if fields.type != "function" or fields.name is None:
        message = f"{where} is of type {show_value(fields.type)}; it must be a function with its name"
        raise InvalidRequest(message, param=where, code="invalid_value")
    return fields.name


def parse_text(raw: object, ignored: list[str] | None = None) -> Grammar | None:
    """What the answer's text must look like.

    Raises:
        InvalidRequest: names the field.
    """
    if raw is None:
        return None
    fields = validate(TextFields, raw, prefix="text", ignored=ignored)
    if fields.verbosity not in (None, "medium"):
        message = "text.verbosity is not supported: the models have no such setting; ask for it in the instructions"
        raise InvalidRequest(message, param="text.verbosity", code="unsupported_parameter")
    if fields.format is None:
        return None
    given = {"schema_" if name == "schema" else name: value for name, value in fields.format.items()}
    form = validate(FormatFields, given, prefix="text.format", ignored=ignored)
    match form.type:
        case "text":
            return None
        case "json_object":
            return Grammar(GrammarKind.JSON_OBJECT, where="text.format")
        case "json_schema":
            if form.schema_ is None or form.name is None:
                path = f"text.format.{'name' if form.name is None else 'schema'}"
                raise InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
            return schema_grammar(form.schema_, "text.format.schema")
    message = f"text.format.type is {show_value(form.type)}; it must be one of text, json_object, json_schema"
    raise InvalidRequest(message, param="text.format.type", code="invalid_value")
