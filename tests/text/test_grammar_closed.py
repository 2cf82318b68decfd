from __future__ import annotations

import copy
from typing import Any

import pytest

from corral.text.grammar.closed import close_objects

CLOSED = {"additionalProperties": False}
A = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
B = {"type": "object", "properties": {"b": {"type": "string"}}}


def closed(schema: dict[str, Any]) -> Any:
    found = copy.deepcopy(schema)
    close_objects(found)
    return found


def test_an_object_that_names_its_properties_has_no_others() -> None:
    assert closed(A) == {**A, **CLOSED}
    assert closed({"type": "array", "items": A}) == {"type": "array", "items": {**A, **CLOSED}}
    nested = {"properties": {"x": A, "y": {"anyOf": [B, {"type": "null"}]}}}
    assert closed(nested)["properties"] == {"x": {**A, **CLOSED}, "y": {"anyOf": [{**B, **CLOSED}, {"type": "null"}]}}
    referred = {"$defs": {"A": A}, "properties": {"a": {"$ref": "#/$defs/A", "description": "one"}}}
    assert closed(referred)["$defs"]["A"] == {**A, **CLOSED}
    assert closed({"allOf": [A]}) == {"allOf": [{**A, **CLOSED}]}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**A, "additionalProperties": True},
        {**A, "additionalProperties": {"type": "integer"}},
        {**A, "patternProperties": {"^x": {}}},
        {**A, "required": ["elsewhere"]},
        {**A, "minProperties": 2},
        {"allOf": [A, B]},
        {**A, "anyOf": [B]},
        {"oneOf": [A, B]},
        {"$defs": {"A": A}, "$ref": "#/$defs/A", "properties": {"b": {}}},
        {"if": A, "then": B},
        {"properties": {"properties": True}, "not": B},
    ],
    ids=str,
)
def test_what_others_have_a_say_in_stays_open(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema
