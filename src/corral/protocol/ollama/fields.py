"""Reading a body as Ollama does: unknown fields pass, null is the default, a wrong type is refused in Go's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from corral.errors import InvalidRequest

_MAX_SHOWN = 100  # characters of a client's value that an error repeats


class Fields:
    """The fields of one JSON object.

    Args:
        body: the object.
        struct: the name of Ollama's type for the whole body, which its errors tell.
        path: where in the body the object stands.
    """

    def __init__(self, body: Mapping[str, Any], struct: str, path: str = "") -> None:
        self._body = body
        self._struct = struct
        self._path = path

    def __contains__(self, name: str) -> bool:
        return self._body.get(name) is not None

    def raw(self, name: str) -> Any:
        """The value as it came; None where there is none."""
        return self._body.get(name)

    def text(self, name: str) -> str:
        value = self._body.get(name)
        if value is None:
            return ""
        return value if isinstance(value, str) else self._refuse(name, value, "string")

    def flag(self, name: str) -> bool | None:
        value = self._body.get(name)
        return value if value is None or isinstance(value, bool) else self._refuse(name, value, "bool")

    def whole(self, name: str) -> int | None:
        value = self._body.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        return self._refuse(name, value, "int")

    def items(self, name: str) -> list[Any]:
        value = self._body.get(name)
        if value is None:
            return []
        return value if isinstance(value, list) else self._refuse(name, value, "array")

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._body.get(name)
        if value is None:
            return {}
        return value if isinstance(value, dict) else self._refuse(name, value, "object")

    def texts_of(self, name: str) -> dict[str, str]:
        """An object whose values are all strings."""
        found = self.mapping(name)
        for key, value in found.items():
            if not isinstance(value, str):
                self._refuse(f"{name}.{shorten(key)}", value, "string")
        return found

    def objects(self, name: str) -> list[Fields]:
        """A list of objects, each with its own path."""
        found = []
        for value in self.items(name):
            if not isinstance(value, dict):
                self._refuse(name, value, "object")
            found.append(Fields(value, self._struct, self._join(name)))
        return found

    def inner(self, name: str) -> Fields:
        """The object at `name`; an empty one where there is none."""
        return Fields(self.mapping(name), self._struct, self._join(name))

    def _join(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _refuse(self, name: str, value: object, wanted: str) -> NoReturn:
        path = self._join(name)
        message = (
            f"json: cannot unmarshal {_kind_of(value)} into Go struct field {self._struct}.{path} of type {wanted}"
        )
        raise InvalidRequest(message, param=path)


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case str():
            return "string"
        case float():
            return f"number {value!r}"
        case int():
            return "number"
        case list():
            return "array"
    return "object"


def shorten(text: str) -> str:
    """A client's text, short enough for an error message or a log line."""
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def model_name(fields: Fields) -> str:
    """`model`, or its old name `name`."""
    return fields.text("model") or fields.text("name")
