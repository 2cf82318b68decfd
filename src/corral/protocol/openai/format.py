"""What an answer is to look like, in OpenAI's and vLLM's words -> Grammar. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import Field

from corral.errors import InvalidRequest, LimitExceeded
from corral.grammar import Grammar, GrammarKind, kind_of_grammar_text
from corral.limits import MAX_GRAMMAR_CHOICES, MAX_SOURCE_LENGTH
from corral.protocol.fields import StrictModel, show_value, validate

_GUIDED = ("json", "regex", "choice", "grammar")  # vLLM's names of old: guided_json, ...


class StructuredOutputs(StrictModel):
    """vLLM's `structured_outputs`: one of these."""

    json_: Any = Field(None, alias="json")
    regex: str | None = None
    choice: list[Any] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class StructuredFields(StrictModel):
    """vLLM's names, for chat and text completions."""

    structured_outputs: StructuredOutputs | None = None
    response_format: Any = None
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[Any] | None = None
    guided_grammar: str | None = None

    def grammar(self, ignored: list[str] | None = None) -> Grammar | None:
        """The constraint, if the body asks for one.

        Raises:
            InvalidRequest: asks for several at once, or for what cannot be read.
        """
        found: dict[str, Grammar] = {}
        if (asked := parse_response_format(self.response_format, ignored=ignored)) is not None:
            found["response_format"] = asked
        if (outputs := self.structured_outputs) is not None:
            given = {name: getattr(outputs, "json_" if name == "json" else name) for name in _GUIDED}
            for name, value in given.items():
                if value is not None:
                    where = f"structured_outputs.{name}"
                    found[where] = _parse(name, value, where)
            if outputs.json_object:
                where = "structured_outputs.json_object"
                found[where] = Grammar(GrammarKind.JSON_OBJECT, where=where)
            if not any(name.startswith("structured_outputs") for name in found):
                message = "structured_outputs is empty; give one of json, regex, choice, grammar and json_object"
                raise InvalidRequest(message, param="structured_outputs")
        for name in _GUIDED:
            where = f"guided_{name}"
            if (value := getattr(self, where)) is not None:
                found[where] = _parse(name, value, where)
        if len(found) > 1:
            *_, last = found
            message = f"{' and '.join(found)} are given; an answer can have one form only"
            raise InvalidRequest(message, param=last)
        return next(iter(found.values()), None)


class _ResponseFormat(StrictModel):
    type: str
    json_schema: Any = None


class _JsonSchema(StrictModel):
    name: str
    description: str | None = None
    schema_: Any = Field(None, alias="schema")
    strict: bool | None = None


def parse_response_format(
    value: object, *, where: str = "response_format", ignored: list[str] | None = None
) -> Grammar | None:
    """OpenAI's `response_format`: {"type": "text" | "json_object" | "json_schema", ...}; None for text.

    `strict` makes no difference: a schema is always kept to.

    Raises:
        InvalidRequest: names the field.
    """
    if value is None:
        return None
    fields = validate(_ResponseFormat, value, prefix=where, ignored=ignored)
    match fields.type:
        case "text" | "json_object" if fields.json_schema is not None:
            path = f"{where}.json_schema"
            raise InvalidRequest(f"{path} is only allowed with the type 'json_schema'", param=path)
        case "text":
            return None
        case "json_object":
            return Grammar(GrammarKind.JSON_OBJECT, where=where)
        case "json_schema":
            path = f"{where}.json_schema"
            if fields.json_schema is None:
                raise InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
            inner = validate(_JsonSchema, fields.json_schema, prefix=path, ignored=ignored)
            if inner.schema_ is None:  # as OpenAI: any object will do
                return Grammar(GrammarKind.JSON_OBJECT, where=path)
            return schema_grammar(inner.schema_, f"{path}.schema")
    message = f"{where}.type is {show_value(fields.type)}; it must be one of text, json_object, json_schema"
    raise InvalidRequest(message, param=f"{where}.type", code="invalid_value")


def schema_grammar(schema: object, where: str) -> Grammar:
    """A JSON Schema, as an object, as true or false, or as the text of one of these.

    Raises:
        InvalidRequest: none of these, or too large.
    """
    if isinstance(schema, str):
        _check_length(schema, where)
        try:
            schema = msgspec.json.decode(schema)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise InvalidRequest(f"{where} is a string that is not JSON", param=where, code="invalid_value") from None
    if not isinstance(schema, dict | bool):
        message = f"{where} is {show_value(schema)}; it must be a JSON Schema, which is an object"
        raise InvalidRequest(message, param=where, code="invalid_type")
    try:
        source = msgspec.json.encode(schema).decode()
    except RecursionError:
        raise InvalidRequest(f"{where} is nested too deeply", param=where, code="invalid_value") from None
    _check_length(source, where)
    return Grammar(GrammarKind.JSON_SCHEMA, source, where)


def text_grammar(text: str, where: str) -> Grammar:
    """A grammar's text, in Lark or GBNF.

    Raises:
        InvalidRequest: empty or too long.
    """
    _check_length(text, where)
    return Grammar(kind_of_grammar_text(text), text, where)


def _parse(name: str, value: Any, where: str) -> Grammar:
    match name:
        case "json":
            return schema_grammar(value, where)
        case "regex":
            _check_length(value, where)
            return Grammar(GrammarKind.REGEX, value, where)
        case "choice":
            return _choice_grammar(value, where)
    return text_grammar(value, where)


def _choice_grammar(choices: list[Any], where: str) -> Grammar:
    if not 1 <= len(choices) <= MAX_GRAMMAR_CHOICES:
        raise LimitExceeded(where, len(choices), MAX_GRAMMAR_CHOICES, "texts", least=1)
    for position, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice:
            path = f"{where}[{position}]"
            message = f"{path} is {show_value(choice)}; it must be a string that is not empty"
            raise InvalidRequest(message, param=path, code="invalid_value")
    return Grammar(GrammarKind.CHOICE, msgspec.json.encode(choices).decode(), where)


def _check_length(text: str, where: str) -> None:
    if not 1 <= len(text) <= MAX_SOURCE_LENGTH:
        raise LimitExceeded(where, len(text), MAX_SOURCE_LENGTH, "characters", least=1)
