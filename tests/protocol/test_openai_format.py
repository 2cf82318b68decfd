from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.grammar import Grammar, GrammarKind
from corral.protocol.openai.chat import parse_chat

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
LARK = 'start: "a"'
GBNF = 'root ::= "a"'


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.mark.parametrize(
    ("fields", "kind", "source"),
    [
        ({"response_format": {"type": "json_object"}}, GrammarKind.JSON_OBJECT, ""),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
                }
            },
            GrammarKind.JSON_SCHEMA,
            SCHEMA,
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, GrammarKind.JSON_OBJECT, ""),
        ({"structured_outputs": {"json": SCHEMA}}, GrammarKind.JSON_SCHEMA, SCHEMA),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, GrammarKind.JSON_SCHEMA, SCHEMA),
        ({"structured_outputs": {"regex": "a+"}}, GrammarKind.REGEX, "a+"),
        ({"structured_outputs": {"choice": ["a", "b"]}}, GrammarKind.CHOICE, ["a", "b"]),
        ({"structured_outputs": {"grammar": LARK}}, GrammarKind.LARK, LARK),
        ({"structured_outputs": {"grammar": GBNF}}, GrammarKind.GBNF, GBNF),
        ({"structured_outputs": {"json_object": True}}, GrammarKind.JSON_OBJECT, ""),
        ({"guided_json": SCHEMA}, GrammarKind.JSON_SCHEMA, SCHEMA),
        ({"guided_regex": "a+"}, GrammarKind.REGEX, "a+"),
        ({"guided_choice": ["a"]}, GrammarKind.CHOICE, ["a"]),
        ({"guided_grammar": GBNF}, GrammarKind.GBNF, GBNF),
    ],
)
def test_every_way_to_ask(fields: dict[str, Any], kind: GrammarKind, source: Any) -> None:
    grammar = parse_chat(body(**fields)).request.grammar
    assert grammar is not None
    assert grammar.kind is kind
    assert (grammar.source if isinstance(source, str) else json.loads(grammar.source)) == source


def test_text_asks_for_nothing() -> None:
    assert parse_chat(body(response_format={"type": "text"})).request.grammar is None
    assert parse_chat(body(response_format=None, structured_outputs=None)).request.grammar is None


def test_the_key_order_of_a_schema_is_kept() -> None:
    grammar = parse_chat(body(guided_json={"properties": {"z": {}, "a": {}}})).request.grammar
    assert grammar == Grammar(GrammarKind.JSON_SCHEMA, '{"properties":{"z":{},"a":{}}}')


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"response_format": "json"}, "response_format", "must be an object"),
        ({"response_format": {}}, "response_format.type", "required"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "one of text"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "required"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
            "required",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}}},
            "response_format.json_schema.schema",
            "a JSON Schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schem": {}}}},
            "response_format.json_schema.schem",
            "did you mean schema?",
        ),
        ({"response_format": {"type": "text", "json_schema": {}}}, "response_format.json_schema", "only allowed"),
        ({"structured_outputs": {}}, "structured_outputs", "empty"),
        ({"structured_outputs": {"jsn": {}}}, "structured_outputs.jsn", "did you mean json?"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "not JSON"),
        ({"structured_outputs": {"json": "[1]"}}, "structured_outputs.json", "a list of 1"),
        ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex", "0 characters"),
        ({"structured_outputs": {"regex": 5}}, "structured_outputs.regex", "a string"),
        ({"structured_outputs": {"regex": "x" * (1 << 21)}}, "structured_outputs.regex", "characters"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "0 texts"),
        ({"structured_outputs": {"choice": ["a", 1]}}, "structured_outputs.choice[1]", "a string"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice", "one form only"),
        ({"guided_json": {}, "response_format": {"type": "json_object"}}, "guided_json", "one form only"),
        ({"guided_decoding_backend": "xgrammar"}, "guided_decoding_backend", "one backend"),
        ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern", "not supported"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**fields))
    assert caught.value.param == param
    assert words in caught.value.message
