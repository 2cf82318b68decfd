"""One JSON value, found in text while it comes."""

from __future__ import annotations

import enum
import json
import math
import re
import sys
from typing import Any

MAX_DEPTH = 128  # what reads the value later may recurse
_MAX_WORD = 400  # characters of a number
_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_WORD = re.compile(r"[-+.0-9A-Za-z]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LITERALS = frozenset(("true", "false", "null"))
_HEX = frozenset("0123456789abcdefABCDEF")


class NotJSONError(ValueError):
    """The text is no JSON. `position` is that of the first character that cannot belong to it."""

    position = 0


class _Expect(enum.Enum):
    VALUE = enum.auto()
    VALUE_OR_END = enum.auto()
    KEY = enum.auto()
    KEY_OR_END = enum.auto()
    COLON = enum.auto()
    COMMA_OR_END = enum.auto()
    STRING = enum.auto()
    ESCAPE = enum.auto()
    HEX = enum.auto()
    WORD = enum.auto()
    NOTHING = enum.auto()


class JSONScanner:
    """Finds the end of a value: each character is looked at once, and nesting costs no stack of Python's.

    Line breaks and other control characters that stand bare in a string, as models write them, become escapes.

    Attributes:
        is_done: the value has ended.
    """

    def __init__(self) -> None:
        self._expect = _Expect.VALUE
        self._open: list[str] = []
        self._is_key = False
        self._word = ""
        self._num_hex = 0

    @property
    def is_done(self) -> bool:
        return self._expect is _Expect.NOTHING

    def feed(self, text: str, position: int) -> tuple[int, str]:
        """(position after what belongs to the value, what belongs to it) of `text` from `position` on.

        Raises:
            NotJSONError: at the first character that cannot belong to a value.
        """
        parts: list[str] = []
        while position < len(text) and self._expect is not _Expect.NOTHING:
            try:
                position = self._step(text, position, parts)
            except NotJSONError as error:
                error.position = position
                raise
        return position, "".join(parts)

    def _step(self, text: str, position: int, parts: list[str]) -> int:
        if self._expect is _Expect.STRING:
            return self._string(text, position, parts)
        if self._expect is _Expect.ESCAPE:
            return self._escape(text, position, parts)
        if self._expect is _Expect.HEX:
            return self._hex(text, position, parts)
        if self._expect is _Expect.WORD:
            return self._go_on_with_word(text, position, parts)
        end = _end(_SPACE, text, position)
        if end == position:
            end += self._structure(text[position])
        parts.append(text[position:end])
        return end

    def _go_on_with_word(self, text: str, position: int, parts: list[str]) -> int:
        if len(self._word) > _MAX_WORD:
            raise NotJSONError("a number is too long")
        end = _end(_WORD, text, position, position + 1 + _MAX_WORD - len(self._word))
        self._word += text[position:end]
        parts.append(text[position:end])
        if end == position:
            self._end_word()
        return end

    def finish(self) -> bool:
        """Whether the value is whole, at the end of the text: only here a bare number ends without a sign of it."""
        if self._expect is _Expect.WORD and not self._open:
            self._end_word()
        return self.is_done

    def _structure(self, character: str) -> int:
        """Takes note of a character outside of strings and words; 0 if a word begins with it, which is read later."""
        expect = self._expect
        if expect in (_Expect.VALUE, _Expect.VALUE_OR_END):
            self._value(character)
        elif expect in (_Expect.KEY, _Expect.KEY_OR_END) and character == '"':
            self._expect, self._is_key = _Expect.STRING, True
        elif expect is _Expect.COLON and character == ":":
            self._expect = _Expect.VALUE
        elif expect is _Expect.COMMA_OR_END and character == ",":
            self._expect = _Expect.KEY if self._open[-1] == "}" else _Expect.VALUE
        elif expect in (_Expect.KEY_OR_END, _Expect.COMMA_OR_END) and character == self._open[-1]:
            self._close()
        else:
            raise NotJSONError(f"{character!r} is out of place")
        return 0 if self._expect is _Expect.WORD else 1

    def _value(self, character: str) -> None:
        if character == '"':
            self._expect, self._is_key = _Expect.STRING, False
        elif character in "{[":
            if len(self._open) >= MAX_DEPTH:
                raise NotJSONError("nested too deeply")
            self._open.append("}" if character == "{" else "]")
            self._expect = _Expect.KEY_OR_END if character == "{" else _Expect.VALUE_OR_END
        elif character == "]" and self._expect is _Expect.VALUE_OR_END:
            self._close()
        elif character in "-0123456789tfn":
            self._word = ""
            self._expect = _Expect.WORD
        else:
            raise NotJSONError(f"{character!r} is out of place")

    def _close(self) -> None:
        self._open.pop()
        self._after_value()

    def _after_value(self) -> None:
        self._expect = _Expect.COMMA_OR_END if self._open else _Expect.NOTHING

    def _end_word(self) -> None:
        if self._word not in _LITERALS and not _NUMBER.fullmatch(self._word):
            raise NotJSONError(f"{self._word!r:.40} is no value")
        self._after_value()

    def _string(self, text: str, position: int, parts: list[str]) -> int:
        end = _end(_PLAIN, text, position)
        parts.append(text[position:end])
        if end == len(text):
            return end
        character = text[end]
        if character == '"':
            parts.append(character)
            if self._is_key:
                self._expect = _Expect.COLON
            else:
                self._after_value()
        elif character == "\\":
            parts.append(character)
            self._expect = _Expect.ESCAPE
        else:
            parts.append(json.dumps(character)[1:-1])
        return end + 1

    def _escape(self, text: str, position: int, parts: list[str]) -> int:
        character = text[position]
        if character == "u":
            self._expect, self._num_hex = _Expect.HEX, 0
        elif character in '"\\/bfnrt':
            self._expect = _Expect.STRING
        else:
            raise NotJSONError(f"\\{character} is no escape")
        parts.append(character)
        return position + 1

    def _hex(self, text: str, position: int, parts: list[str]) -> int:
        if text[position] not in _HEX:
            raise NotJSONError("an escape needs four hexadecimal digits")
        parts.append(text[position])
        self._num_hex += 1
        if self._num_hex == 4:
            self._expect = _Expect.STRING
        return position + 1


def _end(pattern: re.Pattern[str], text: str, position: int, limit: int = sys.maxsize) -> int:
    """Where the run of characters that begins at `position` ends; the patterns match any place, if only emptily."""
    match = pattern.match(text, position, limit)
    return match.end() if match else position


def read_json(text: str) -> Any:
    """The value of a JSON text from a model.

    Raises:
        NotJSONError: it is none, or none that can be handed on: NaN, infinite numbers, halves of surrogate pairs.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise NotJSONError(str(error)) from error
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
