"""Calls that are JSON objects: {"name": ..., "arguments": {...}}, alone or in a list."""

from __future__ import annotations

import json

from corral.text.tools.json_scanner import NotJSONError, read_json
from corral.text.tools.reader import NotACallError, Reader, Reading

_NAMES = frozenset(("name", "function", "tool_name", "tool"))
_ARGUMENTS = frozenset(("arguments", "parameters", "args"))
_OTHERS = frozenset(("type", "id", "index", "tool_call_id", "call_id"))


def json_calls(reader: Reader, *, is_strict: bool = False, is_in_list: bool = False) -> Reading[None]:
    """The calls that come next: an object, or a list of them.

    Args:
        is_strict: an object with any other member is no call; no marker says that it is one.
        is_in_list: the list's bracket is taken already.

    Raises:
        NotACallError: what comes is no call.
    """
    if not is_in_list and not (yield from reader.one_of("[")):
        yield from json_call(reader, is_strict=is_strict)
        return
    separator = ","
    while separator == ",":
        yield from reader.skip_space()
        yield from json_call(reader, is_strict=is_strict)
        yield from reader.skip_space()
        separator = yield from reader.expect(",", "]")


def json_call(reader: Reader, *, is_strict: bool = False) -> Reading[None]:
    """One call; arguments as for json_calls."""
    call = _JSONCall(reader, is_strict=is_strict)
    yield from call.members(is_inner=False)
    call.end()


class _JSONCall:
    def __init__(self, reader: Reader, *, is_strict: bool) -> None:
        self._reader = reader
        self._is_strict = is_strict
        self._name = ""
        self._early: str | None = None  # arguments that came before the name
        self._has_begun = False

    def members(self, *, is_inner: bool) -> Reading[None]:
        reader = self._reader
        yield from reader.expect("{")
        yield from reader.skip_space()
        if (yield from reader.one_of("}")):
            return
        separator = ","
        while separator == ",":
            yield from reader.skip_space()
            key = yield from self._string()
            yield from reader.skip_space()
            yield from reader.expect(":")
            yield from reader.skip_space()
            yield from self._member(key, is_inner=is_inner)
            yield from reader.skip_space()
            separator = yield from reader.expect(",", "}")

    def _member(self, key: str, *, is_inner: bool) -> Reading[None]:
        reader = self._reader
        if key == "function" and not is_inner and (yield from reader.peek()) == "{":
            yield from self.members(is_inner=True)
        elif key in _NAMES:
            if self._name:
                raise NotACallError("a call has one name")
            self._name = yield from self._string()
        elif key in _ARGUMENTS:
            yield from self._arguments()
        elif self._is_strict and key not in _OTHERS:
            raise NotACallError(f"{key!r:.80} is no part of a call")
        else:
            yield from reader.json()

    def _string(self) -> Reading[str]:
        if (yield from self._reader.peek()) != '"':
            raise NotACallError("a text is missing")
        return str(_value((yield from self._reader.json())))

    def _arguments(self) -> Reading[None]:
        reader = self._reader
        if self._has_begun or self._early is not None:
            raise NotACallError("a call has its arguments once")
        if not self._name:
            self._early = _object((yield from reader.json()))
            return
        self._has_begun = True
        if (yield from reader.peek()) == "{":
            reader.begin(self._name)
            yield from reader.json(is_told=True)
        else:
            arguments = _object((yield from reader.json()))
            reader.begin(self._name)
            reader.give(arguments)

    def end(self) -> None:
        if not self._has_begun:
            self._reader.begin(self._name)
            self._reader.give(self._early or "{}")
        self._reader.whole()


def _object(text: str) -> str:
    """Arguments as an object's text: models write that as a string, too, or nothing at all."""
    value = _value(text)
    if isinstance(value, str):
        text, value = value, _value(value) if value.strip() else None
    return "{}" if value is None else text if isinstance(value, dict) else _refuse()


def _refuse() -> str:
    raise NotACallError("the arguments are no object")


def _value(text: str) -> object:
    try:
        return read_json(text)
    except NotJSONError as error:
        raise NotACallError(str(error)) from error


def quoted(text: str) -> str:
    """The JSON of a text, as models write it."""
    return json.dumps(text, ensure_ascii=False)
