"""The tools of one request, as far as reading calls of them takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from corral.text.tools.json_scanner import NotJSONError, read_json
from corral.tool_call import ToolChoice

_WORDS = {"True": "true", "False": "false", "None": "null"}
_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


class OfferedTools:
    """Names and parameters of what may be called.

    Args:
        tools: of the request.
        choice: which of them may be called at all, and whether more than once.
    """

    def __init__(self, tools: Iterable[Mapping[str, Any]], choice: ToolChoice) -> None:
        self.is_parallel = choice.is_parallel
        self._parameters: dict[str, Mapping[str, Any]] = {}
        for tool in tools:
            function = tool.get("function")
            name = function.get("name") if isinstance(function, Mapping) else None
            if isinstance(function, Mapping) and isinstance(name, str) and (not choice.names or name in choice.names):
                parameters = function.get("parameters")
                self._parameters[name] = parameters if isinstance(parameters, Mapping) else {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._parameters)

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def schema_of(self, name: str) -> Mapping[str, Any]:
        """The schema of a tool's arguments: an object, empty where the tool takes none."""
        parameters = self._parameters[name]
        if not parameters or not parameters.get("properties", True):
            return _NO_PARAMETERS
        return parameters if "type" in parameters else {**parameters, "type": "object"}

    def parameter_of(self, name: str, parameter: str) -> Mapping[str, Any]:
        """The schema of one parameter; empty if nothing is known of it."""
        properties = self._parameters[name].get("properties")
        schema = properties.get(parameter) if isinstance(properties, Mapping) else None
        return schema if isinstance(schema, Mapping) else {}


def types_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """JSON's types that a schema says a value may have; empty if it does not say."""
    types: set[str] = set()
    branches = [schema]
    for key in ("anyOf", "oneOf"):
        listed = schema.get(key)
        branches += [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
    for branch in branches:
        kind = branch.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        types.update(each for each in kinds if isinstance(each, str))
        values = [branch["const"]] if "const" in branch else branch.get("enum")
        if not kind and isinstance(values, list):
            types.update(map(_type_of, values))
    return frozenset(types)


def value_as_json(text: str, schema: Mapping[str, Any]) -> str:
    """The JSON of a value that a model wrote bare: what its schema allows, else a string."""
    types = types_of(schema)
    if types and types != {"string"}:
        word = text.strip()
        word = _WORDS.get(word, word)
        try:
            value = read_json(word)
        except NotJSONError:
            pass
        else:
            if _type_of(value) in types or (_type_of(value) == "integer" and "number" in types):
                return json.dumps(value, ensure_ascii=False)
            if "string" not in types:
                return json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
