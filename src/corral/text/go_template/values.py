"""Go's view of values: truth, kinds, how they are printed and written as JSON.

Go's types are stood in for by None (nil), bool, int, float, str, list, dict (a map) and Struct.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

NO_VALUE = "<no value>"  # what text/template writes for nil
_MAX_DEPTH = 64
# Go's encoding/json keeps its output fit for HTML.
_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class Struct:
    """A Go struct: a fixed set of fields.

    Args:
        fields: by their names in Go.
        json_value: what it is as JSON.
        prints_json: its String() is its JSON; otherwise it is printed as {value value ...}.
    """

    __slots__ = ("fields", "json_value", "prints_json", "type_name")

    def __init__(
        self, type_name: str, fields: Mapping[str, Any], json_value: Any, *, prints_json: bool = False
    ) -> None:
        self.type_name = type_name
        self.fields = fields
        self.json_value = json_value
        self.prints_json = prints_json


class JsonList(list[Any]):
    """A list whose String() is its JSON."""


class JsonMap(dict[str, Any]):
    """A map whose String() is its JSON."""


def is_true(value: Any) -> bool:
    """Go's truth: not the zero or empty value; a struct is always true."""
    return isinstance(value, Struct) or bool(value)


def kind_of(value: Any) -> str:
    """The kind of a value that Go can compare; other kinds are "list", "map" and "struct"."""
    if value is None:
        return "nil"
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"), (list, "list")):
        if isinstance(value, kind):
            return name
    return "struct" if isinstance(value, Struct) else "map"


def type_name(value: Any) -> str:
    """What a value is, for an error's text."""
    return value.type_name if isinstance(value, Struct) else kind_of(value)


def show(value: Any) -> str:
    """What {{value}} writes."""
    return NO_VALUE if value is None else formatted(value)


def formatted(value: Any, depth: int = 0) -> str:
    """fmt's %v."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"a value nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value, "%v")
    if isinstance(value, JsonList | JsonMap):
        return to_json(value)
    if isinstance(value, list):
        return f"[{' '.join(formatted(entry, depth + 1) for entry in value)}]"
    if isinstance(value, Struct):
        if value.prints_json:
            return to_json(value)
        return f"{{{' '.join(formatted(entry, depth + 1) for entry in value.fields.values())}}}"
    return f"map[{' '.join(f'{key}:{formatted(value[key], depth + 1)}' for key in sorted(value))}]"


def to_json(value: Any) -> str:
    """encoding/json's Marshal; but the keys of what a client sent keep their order, as Ollama keeps it."""
    return _json(value, 0)


def _json(value: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise ValueError(f"a value nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Struct):
        return _json(value.json_value, depth + 1)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).translate(_HTML)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("JSON has no infinite numbers")
        return _float(value, "json")
    if isinstance(value, Mapping):
        members = (f"{_json(str(key), depth)}:{_json(entry, depth + 1)}" for key, entry in value.items())
        return f"{{{','.join(members)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(_json(entry, depth + 1) for entry in value)}]"
    return json.dumps(value)


def _float(value: float, form: str) -> str:
    """Shortest digits that give the number back; fmt and JSON differ in when and how they write an exponent."""
    if not math.isfinite(value):
        return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    digits, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = digits.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    digits = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    sign = "-" if value < 0 else ""
    least, most = (-5, 21) if form == "json" else (-3, 6)  # JSON: from 1e-6 to 1e21; fmt: from 1e-4 to 1e6
    if least <= point <= most:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        return sign + (digits.ljust(point, "0") if len(digits) <= point else f"{digits[:point]}.{digits[point:]}")
    power = point - 1
    mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    if form == "json" and -10 < power < 0:
        return f"{sign}{mantissa}e-{-power}"
    return f"{sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
