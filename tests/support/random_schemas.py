"""Seeded JSON Schemas of every kind that users write: some that are supported, some that are to be refused."""

from __future__ import annotations

import random
from typing import Any

_WORDS = ("name", "age", "city", "tags", "is_open", "größe", "a b", "x/y", 'q"', "\\path", "über", "id")
_PATTERNS = ("^[a-z]{2,8}$", "^[A-Z][a-z]+ [A-Z][a-z]+$", r"^\d{3}-\d{4}$", "^(yes|no)$", "^[^\\s/]{1,5}$")
_FORMATS = ("date", "time", "date-time", "email", "uuid", "ipv4")
_UNSUPPORTED: tuple[dict[str, Any], ...] = (
    {"uniqueItems": True, "type": "array"},
    {"not": {"type": "string"}},
    {"if": {"type": "string"}, "then": {"minLength": 2}},
    {"type": "object", "propertyNames": {"pattern": "^a"}},
    {"type": "string", "pattern": "(?=a)b"},
    {"type": "array", "contains": {"type": "integer"}},
)


def random_schema(seed: int) -> dict[str, Any]:
    """An object whose answers end by themselves, as a model that goes on at random would else seldom end."""
    rng = random.Random(seed)
    schema = _object(rng, 2)
    if rng.random() < 0.2:
        schema["$defs"] = {"leaf": _leaf(rng)}
        schema["properties"]["ref"] = {"$ref": "#/$defs/leaf"}
        schema["required"].append("ref")
    if rng.random() < 0.1:
        schema["properties"]["odd"] = dict(rng.choice(_UNSUPPORTED))
    return schema


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(_WORDS, rng.randint(1, 3))
    required = [name for name in names if rng.random() < 0.7]
    return {
        "type": "object",
        "properties": {name: _value(rng, depth - 1) for name in names},
        "required": required,
        "additionalProperties": False,
    }


def _value(rng: random.Random, depth: int) -> dict[str, Any]:
    if depth <= 0 or rng.random() < 0.5:
        return _leaf(rng)
    kind = rng.randrange(4)
    if kind == 0:
        return _object(rng, depth)
    if kind == 1:
        return {"type": "array", "items": _value(rng, depth - 1), "minItems": rng.randint(0, 1), "maxItems": 2}
    if kind == 2:
        return {"anyOf": [_value(rng, depth - 1), _value(rng, depth - 1)]}
    return {"type": "array", "prefixItems": [_leaf(rng), _leaf(rng)], "items": False, "minItems": 2}


def _leaf(rng: random.Random) -> dict[str, Any]:
    low = rng.randint(-1000, 1000)
    return rng.choice(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["integer", "null"], "minimum": low, "maximum": low + rng.randint(0, 5000)},
            {"type": "integer", "minimum": 0, "exclusiveMaximum": 400, "multipleOf": rng.choice([1, 5, 7])},
            {"type": "number", "minimum": low / 10, "maximum": low / 10 + 100},
            {"type": "string", "minLength": rng.randint(0, 3), "maxLength": 12},
            {"type": "string", "pattern": rng.choice(_PATTERNS), "maxLength": 20},
            {"type": "string", "format": rng.choice(_FORMATS), "maxLength": 60},
            {"enum": rng.sample(["red", "grün", "", 1, 2.5, None, True, 'a"b', [1], {"a": 1}], 3)},
            {"const": rng.choice(["x", 7, None, {"k": [1, 2]}])},
        ]
    )
