"""Objects that name their properties have no others: a model that may go on naming things does."""

from __future__ import annotations

from typing import Any

_ELSEWHERE = ("$ref", "dependentRequired", "dependencies")
_OPEN = ("additionalProperties", "patternProperties", "unevaluatedProperties", "minProperties", "propertyNames")
_NOTES = ("title", "description", "default", "examples", "deprecated", "$comment", "readOnly", "writeOnly")


def close_objects(schema: Any) -> None:
    """Adds additionalProperties: false, in place, where a schema names properties and says nothing of others.

    What satisfies the closed schema satisfies the schema. OpenAI's strict mode demands as much, and llama.cpp and
    xgrammar do the same. Where an object may be held to several places (allOf, $ref with siblings, ...) all stay open:
    closed, the places would exclude one another; and oneOf would hold where it did not.
    """
    if not _is_joined(schema):
        _close(schema)


def _is_joined(schema: Any) -> bool:
    """Whether an object may be held to several places at once, or to exactly one of them, somewhere in the schema."""
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            branches = part.get("allOf")
            if any(name in part for name in ("oneOf", "not", "if", "dependentSchemas")):
                return True
            if "properties" in part and ("anyOf" in part or "allOf" in part):
                return True
            if isinstance(branches, list) and len(branches) > 1:
                return True
            if "$ref" in part and any(name not in ("$ref", "$defs", "definitions", *_NOTES) for name in part):
                return True
            pending += part.values()
        elif isinstance(part, list):
            pending += part
    return False


def _close(schema: Any) -> None:
    pending = [schema]
    while pending:
        part = pending.pop()
        if not isinstance(part, dict):
            continue
        names = part.get("properties")
        if isinstance(names, dict) and names:
            if _is_whole(part, names):
                part["additionalProperties"] = False
            pending += names.values()
        for name in ("items", "additionalProperties", "contains"):
            pending.append(part.get(name))
        for name in ("$defs", "definitions", "patternProperties"):
            found = part.get(name)
            pending += found.values() if isinstance(found, dict) else ()
        for name in ("anyOf", "allOf", "prefixItems"):
            found = part.get(name)
            pending += found if isinstance(found, list) else ()


def _is_whole(part: dict[str, Any], names: dict[str, Any]) -> bool:
    required = part.get("required", [])
    return (
        not any(name in part for name in (*_ELSEWHERE, *_OPEN))
        and isinstance(required, list)
        and all(name in names for name in required)
    )
