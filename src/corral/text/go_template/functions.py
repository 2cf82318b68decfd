"""The functions that templates may call: those of Go's text/template that make no HTML, and Ollama's own.

Each takes Go values and gives one, or raises ValueError with what was wrong. `and` and `or` are the evaluator's, as
they do not look at all their arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from corral.text.go_template.values import Struct, formatted, is_true, kind_of, to_json, type_name
from corral.text.now import now

_MAX_LAYOUT = 10_000  # widths and precisions of a format
_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<verb>.?)", re.DOTALL)
_COMPARABLE = ("int", "float64", "string")


def equal(first: Any, *others: Any) -> bool:
    """eq: whether the first is equal to any of the others."""
    if not others:
        raise ValueError("eq needs two values at least")
    return any(_equal(first, other) for other in others)


def not_equal(first: Any, other: Any) -> bool:
    return not _equal(first, other)


def _equal(left: Any, right: Any) -> bool:
    kinds = kind_of(left), kind_of(right)
    if {"list", "map", "struct"} & set(kinds) and "nil" not in kinds:
        raise ValueError(f"{type_name(left)} and {type_name(right)} cannot be compared")
    if kinds[0] != kinds[1] and "nil" not in kinds:
        raise ValueError(f"{kinds[0]} and {kinds[1]} cannot be compared")
    is_equal: bool = kinds[0] == kinds[1] and left == right
    return is_equal


def less(left: Any, right: Any) -> bool:
    kinds = kind_of(left), kind_of(right)
    if kinds[0] != kinds[1] or kinds[0] not in _COMPARABLE:
        raise ValueError(f"{type_name(left)} and {type_name(right)} have no order")
    if isinstance(left, str):
        return left.encode("utf-8", "surrogatepass") < str(right).encode("utf-8", "surrogatepass")
    is_less: bool = left < right
    return is_less


def less_or_equal(left: Any, right: Any) -> bool:
    return less(left, right) or _equal(left, right)


def greater(left: Any, right: Any) -> bool:
    return not less_or_equal(left, right)


def greater_or_equal(left: Any, right: Any) -> bool:
    return not less(left, right)


def negated(value: Any) -> bool:
    return not is_true(value)


def length(value: Any) -> int:
    """len: of a text in bytes, as Go counts."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list | dict):
        return len(value)
    raise ValueError(f"len of a {type_name(value)}")


def element(value: Any, *indices: Any) -> Any:
    """index: value[a][b]..."""
    for index in indices:
        if isinstance(value, dict):
            if not isinstance(index, str):
                raise ValueError(f"a map's key must be a string, not a {type_name(index)}")
            value = value.get(index)
        elif isinstance(value, list | str):
            items = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            value = items[_checked_index(index, len(items) - 1)]
        else:
            raise ValueError(f"index of a {type_name(value)}")
    return value


def part(value: Any, *bounds: Any) -> Any:
    """slice: value[a:b]; of a text by bytes."""
    if not isinstance(value, list | str) or len(bounds) > 2:
        raise ValueError(f"slice of a {type_name(value)} with {len(bounds)} bounds")
    items = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    begin = _checked_index(bounds[0], len(items)) if bounds else 0
    end = _checked_index(bounds[1], len(items)) if len(bounds) > 1 else len(items)
    if begin > end:
        raise ValueError(f"slice from {begin} to {end}")
    cut = items[begin:end]
    return cut.decode("utf-8", "replace") if isinstance(cut, bytes) else list(cut)


def _checked_index(index: Any, largest: int) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise ValueError(f"an index must be a number, not a {type_name(index)}")
    if not 0 <= index <= largest:
        raise ValueError(f"index {index} is out of range; the largest is {largest}")
    return index


def printed(*values: Any) -> str:
    """print: spaces stand only between values that are both no texts."""
    parts: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(formatted(value))
    return "".join(parts)


def printed_line(*values: Any) -> str:
    return " ".join(map(formatted, values)) + "\n"


def printed_format(form: Any, *values: Any) -> str:
    """printf with the verbs v s q d x X c t f e g and %%."""
    if not isinstance(form, str):
        raise ValueError("printf needs a format")
    rest = iter(values)
    missing = object()

    def filled(match: re.Match[str]) -> str:
        if match["verb"] == "%":
            return "%"
        value = next(rest, missing)
        if value is missing:
            raise ValueError(f"printf has no value for {match[0]!r:.20}")
        return _verb(match, value)

    text = _VERB.sub(filled, form)
    if next(rest, missing) is not missing:
        raise ValueError(f"printf has more values than its format {form!r:.60}")
    return text


def _verb(match: re.Match[str], value: Any) -> str:
    flags, verb = match["flags"], match["verb"]
    width, precision = int(match["width"] or 0), match["precision"]
    if width > _MAX_LAYOUT or int(precision or 0) > _MAX_LAYOUT:
        raise ValueError(f"printf: a width of more than {_MAX_LAYOUT}")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb in ("v", "s") and not (verb == "s" and is_number):
        text = formatted(value)
        text = text if precision is None or not isinstance(value, str) else text[: int(precision or 0)]
    elif verb == "q" and isinstance(value, str):
        text = to_json(value).replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
    elif verb == "t" and isinstance(value, bool):
        text = formatted(value)
    elif verb == "c" and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 0xD800:
        text = chr(value)
    elif verb in ("d", "x", "X") and isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:{'+' if '+' in flags else ''}{verb}}"
    elif verb in ("x", "X") and isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass").hex()
        text = text.upper() if verb == "X" else text
    elif verb in ("f", "e", "g") and isinstance(value, float):
        digits = f".{precision or 0}" if precision is not None else "" if verb != "g" else ".17"
        text = formatted(value) if verb == "g" and precision is None else f"{value:{digits}{verb}}"
        text = f"+{text}" if "+" in flags and not text.startswith("-") else text
    else:
        raise ValueError(f"printf cannot write a {type_name(value)} as {match[0]!r:.20}")
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and is_number:
        return text.zfill(width)
    return text.rjust(width)


def current_date() -> str:
    return now().strftime("%Y-%m-%d")


def yesterday_date() -> str:
    return (now() - timedelta(days=1)).strftime("%Y-%m-%d")


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def typescript_type(value: Any) -> str:
    """toTypeScriptType of one property of a tool's parameters."""
    if not isinstance(value, Struct) or "AnyOf" not in value.fields:
        raise ValueError(f"toTypeScriptType takes a tool's property, not a {type_name(value)}")
    if value.fields["AnyOf"]:
        return " | ".join(map(typescript_type, value.fields["AnyOf"]))
    types = value.fields["Type"]
    names = types if isinstance(types, list) else [types] if types else []
    return " | ".join(_TYPESCRIPT.get(name, "any") for name in names) or "any"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "currentDate": current_date,
    "eq": equal,
    "ge": greater_or_equal,
    "gt": greater,
    "index": element,
    "json": to_json,
    "le": less_or_equal,
    "len": length,
    "lt": less,
    "ne": not_equal,
    "not": negated,
    "print": printed,
    "printf": printed_format,
    "println": printed_line,
    "slice": part,
    "toTypeScriptType": typescript_type,
    "yesterdayDate": yesterday_date,
}
SHORT_CIRCUIT = ("and", "or")
