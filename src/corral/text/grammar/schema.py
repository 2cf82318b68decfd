"""What a client's JSON Schema must keep to before it is compiled."""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any

from corral.errors import InvalidRequest
from corral.limits import MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES
from corral.text.grammar.closed import close_objects

# States of the automaton that counts modulo it, 400 bytes each; they are all made while it is compiled.
MAX_MULTIPLE = 10_000

_WHITE_SPACE = r"\x20|\n(\x20{0,64}|\t{0,16})"
OPTIONS = {
    # A space or a new line with its indent, at most: a small model may else write white space for ever.
    "whitespace_pattern": _WHITE_SPACE,
    "whitespace_flexible": True,
    "lenient": False,
    "coerce_one_of": False,
    "item_separator": ",",
    "key_separator": ":",
}
# Keywords that llguidance passes over though they limit what is valid, outside of the drafts it knows.
_UNENFORCED = ("$dynamicRef", "$recursiveRef", "extends", "disallow", "divisibleBy")


def read_schema(source: str) -> dict[str, Any]:
    """A schema in a text, ready for llguidance.

    Raises:
        InvalidRequest: it is no schema, too large, or nothing can match it.
    """
    try:
        schema = json.loads(source, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep() from None
    except (json.JSONDecodeError, _NoValue) as error:
        raise InvalidRequest(f"the JSON Schema is not JSON: {error}", param="grammar") from None
    except ValueError:  # Python's own limit of an integer's digits
        raise InvalidRequest("the JSON Schema has a number of too many digits", param="grammar") from None
    if schema is True:
        return {}
    if schema is False:
        raise InvalidRequest("the JSON Schema is false: no answer can match it", param="grammar")
    if not isinstance(schema, dict):
        raise InvalidRequest(f"the JSON Schema is {source[:40]!r}; it must be an object", param="grammar")
    check_schema(schema)
    close_objects(schema)
    schema["x-guidance"] = OPTIONS
    return schema


def check_schema(schema: Any) -> None:
    """Holds a schema to the limits, wherever in it something stands; its own x-guidance is taken out.

    Raises:
        InvalidRequest: it exceeds one.
    """
    num_values = 0
    multiple = 1
    pending: list[tuple[Any, int]] = [(schema, 0)]
    while pending:
        value, depth = pending.pop()
        num_values += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise _too_deep()
        if num_values > MAX_SCHEMA_VALUES:
            message = f"the JSON Schema has more than {MAX_SCHEMA_VALUES} values; give a smaller one"
            raise InvalidRequest(message, param="grammar", code="limit_exceeded")
        if isinstance(value, dict):
            value.pop("x-guidance", None)
            for name in _UNENFORCED:
                if name in value:
                    raise InvalidRequest(f"the JSON Schema has {name}, which is not supported", param="grammar")
            multiple = math.lcm(multiple, _digits(value.get("multipleOf")))
            if multiple > MAX_MULTIPLE:
                raise InvalidRequest(
                    f"multipleOf of the JSON Schema comes to {multiple} without the decimal point; the limit of all "
                    f"of a schema together is {MAX_MULTIPLE}",
                    param="grammar",
                )
            pending += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            pending += [(each, depth + 1) for each in value]


def _digits(multiple: Any) -> int:
    """The number without its decimal point and its last zeros' place: 0.25 is 25; what is no number is llguidance's."""
    if isinstance(multiple, bool) or not isinstance(multiple, int | float) or not math.isfinite(multiple):
        return 1
    if isinstance(multiple, int):
        return max(1, min(abs(multiple), MAX_MULTIPLE + 1))
    try:
        digits = Decimal(repr(multiple)).as_tuple()
    except InvalidOperation:
        return 1
    number = int("".join(map(str, digits.digits)))
    exponent = int(digits.exponent)
    shift = min(max(exponent, 0), 6)
    return max(1, min(number * int(10**shift), MAX_MULTIPLE + 1))


class _NoValue(ValueError):
    """Something that Python reads in JSON, and that is none."""


def _no_constant(name: str) -> Any:
    raise _NoValue(f"{name} is no value of JSON")


def _too_deep() -> InvalidRequest:
    message = f"the JSON Schema is nested more than {MAX_SCHEMA_DEPTH} deep; give a flatter one"
    return InvalidRequest(message, param="grammar", code="limit_exceeded")
