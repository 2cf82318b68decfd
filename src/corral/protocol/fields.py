"""Strict reading of request fields: nothing is coerced, nothing is dropped silently.

Unknown fields are refused by name. A server that was told to be lenient gives a list, `ignored`: then they are left
out, and their paths are put there for the answer's header.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from corral.errors import InvalidRequest

_Model = TypeVar("_Model", bound=BaseModel)

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_type": "a string",
}
_MAX_SHOWN = 60  # characters of a client's value that an error repeats


class StrictModel(BaseModel):
    """No coercion ("0.5" is no number, true is no integer), no unknown fields, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def read_fields(
    model: type[_Model],
    body: Mapping[str, Any],
    *,
    unsupported: Mapping[str, tuple[Any, ...]],
    harmless: frozenset[str],
    reasons: Mapping[str, str] | None = None,
    ignored: list[str] | None = None,
) -> _Model:
    """Checks `body` against `model`.

    Args:
        unsupported: known fields that Corral cannot obey, each with the values that ask for nothing.
        harmless: known fields that change no token of the answer.
        reasons: why an unsupported field is.
        ignored: gets the paths of unknown fields; None refuses them.

    Raises:
        InvalidRequest: names the first field at fault.
    """
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if name in unsupported:
            if not any(value == neutral and type(value) is type(neutral) for neutral in unsupported[name]):
                why = f": {reasons[name]}" if reasons and name in reasons else ""
                raise InvalidRequest(f"{name} is not supported{why}", param=name, code="unsupported_parameter")
        elif name not in harmless:
            kept[name] = value
    return validate(model, kept, known=(*unsupported, *harmless), ignored=ignored)


def validate(
    model: type[_Model],
    value: object,
    *,
    prefix: str = "",
    known: tuple[str, ...] = (),
    ignored: list[str] | None = None,
) -> _Model:
    """`model` from `value`; `prefix` is the path of `value` in the body, `known` are further names to suggest.

    Raises:
        InvalidRequest: names the first field at fault, the value given and what is allowed.
    """
    if isinstance(value, dict):
        value = _without_unknown(model, value, prefix, known, ignored)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Built from fields, never from str(error): that holds class names and links.
        first = error.errors(include_url=False, include_context=False)[0]
    path = _join_path(prefix, first["loc"])
    match first["type"]:
        case "missing":
            raise InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
        case kind if kind in _EXPECTED:
            given = show_value(first["input"])
            raise InvalidRequest(f"{path} is {given}; it must be {_EXPECTED[kind]}", param=path, code="invalid_type")
    raise InvalidRequest(f"{path} is {show_value(first['input'])}; it is not allowed", param=path, code="invalid_value")


def _without_unknown(
    model: type[BaseModel],
    value: dict[str, Any],
    prefix: str,
    known: tuple[str, ...],
    ignored: list[str] | None,
) -> dict[str, Any]:
    """The fields that the model has, and so on inwards. pydantic would make an error object for each other one."""
    kept: dict[str, Any] = {}
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for name, inner in value.items():
        if name not in fields:
            path = _join_path(prefix, (name,))
            if ignored is None:
                _refuse_unknown(path, name, (*fields, *known))
            ignored.append(path)
            continue
        nested = _nested_model(fields[name].annotation)
        if nested is not None and isinstance(inner, dict):
            inner = _without_unknown(nested, inner, _join_path(prefix, (name,)), (), ignored)
        kept[name] = inner
    return kept


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds one, or null."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _refuse_unknown(path: str, name: str, known: tuple[str, ...]) -> NoReturn:
    close = difflib.get_close_matches(name[:_MAX_SHOWN], known, n=1)
    message = f"unknown field {path}; did you mean {close[0]}?" if close else f"unknown field {path}"
    raise InvalidRequest(message, param=path, code="unknown_parameter")


def show_value(value: object) -> str:
    """A client's value, short enough for an error message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string {value!r}" if len(value) <= _MAX_SHOWN else f"a string of {len(value)} characters"
        case int() | float():
            text = repr(value)
            return text if len(text) <= _MAX_SHOWN else f"a number of {len(text)} digits"
        case list():
            return f"a list of {len(value)}"
    return "an object"


def _join_path(prefix: str, loc: tuple[int | str, ...]) -> str:
    path = prefix
    for part in loc:
        shown = _show_key(part) if isinstance(part, str) else part
        path += f"[{part}]" if isinstance(part, int) else f".{shown}" if path else f"{shown}"
    return path


def _show_key(name: str) -> str:
    """A client's field name, cut to a length fit for an error message."""
    return name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "..."
