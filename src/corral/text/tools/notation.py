"""Objects that are written almost like JSON, as Gemma's calls and Python's are -> JSON, while they come."""

from __future__ import annotations

import json
from dataclasses import dataclass

from corral.text.tools.json_scanner import MAX_DEPTH, NotJSONError, read_json
from corral.text.tools.reader import NotACallError, Reader, Reading

_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": "", "\\": "\\", "'": "'", '"': '"'}
_DIGITS = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True, slots=True)
class Notation:
    """How values are written.

    Args:
        quotes: what stands on both sides of a text.
        has_escapes: a backslash in a text means something.
        separator: between the name and the value of the outermost members; inside it is always a colon.
        closing: of the outermost object.
    """

    quotes: tuple[str, ...]
    has_escapes: bool
    separator: str
    closing: str


def members_as_json(reader: Reader, notation: Notation) -> Reading[None]:
    """Tells the members up to the closing character, which is taken, as the arguments' JSON; the opening one is taken.

    Raises:
        NotACallError: they are malformed.
    """
    closings = [notation.closing]  # of what is open, the innermost last
    reader.give("{")
    is_first = True
    while closings:
        yield from reader.skip_space()
        closing = closings[-1]
        found = yield from reader.one_of(closing, *(() if is_first else (",",)))
        if not is_first and found == ",":
            yield from reader.skip_space()
            found = yield from reader.one_of(closing)  # a comma may stand before the end, as in Python
            if not found:
                reader.give(", ")
        elif not is_first and not found:
            raise NotACallError("a comma is missing")
        if found:
            reader.give("]" if closing == "]" else "}")
            closings.pop()
            is_first = False
            continue
        if closing != "]":
            yield from _key(reader, notation, is_outermost=len(closings) == 1)
        opened = yield from _value(reader, notation)
        is_first = bool(opened)
        if opened:
            closings.append("]" if opened == "[" else "}")
            if len(closings) > MAX_DEPTH:
                raise NotACallError("nested too deeply")


def _key(reader: Reader, notation: Notation, *, is_outermost: bool) -> Reading[None]:
    quote = yield from reader.one_of(*notation.quotes, '"')
    key = (yield from _text(reader, quote, notation)) if quote else (yield from reader.bare_word())
    if not key:
        raise NotACallError("a name is missing")
    yield from reader.skip_space()
    yield from reader.expect(notation.separator if is_outermost else ":")
    yield from reader.skip_space()
    reader.give(f"{_quoted(key)}: ")


def _value(reader: Reader, notation: Notation) -> Reading[str]:
    """Tells a value; of a list or an object only the opening bracket, which is returned."""
    if bracket := (yield from reader.one_of("{", "[")):
        reader.give(bracket)
        return bracket
    if quote := (yield from reader.one_of(*notation.quotes)):
        reader.give(_quoted((yield from _text(reader, quote, notation))))
        return ""
    word = yield from reader.bare_word()
    word = _WORDS.get(word, word)
    try:
        read_json(word)
    except NotJSONError:
        raise NotACallError(f"{word!r:.40} is no value") from None
    reader.give(word)
    return ""


def _text(reader: Reader, quote: str, notation: Notation) -> Reading[str]:
    if not notation.has_escapes:
        return (yield from reader.until(quote))[0]
    parts: list[str] = []
    while True:
        text, end = yield from reader.until(quote, "\\")
        parts.append(text)
        if end == quote:
            return "".join(parts)
        character = yield from reader.peek()
        if character in _DIGITS:
            reader.take(1)
            parts.append((yield from _numbered(reader, _DIGITS[character])))
        else:
            reader.take(1)
            parts.append(_ESCAPES.get(character, "\\" + character))


def _numbered(reader: Reader, num_digits: int) -> Reading[str]:
    digits = ""
    while len(digits) < num_digits:
        digit = yield from reader.peek()
        if not digit or digit not in "0123456789abcdefABCDEF":
            raise NotACallError("an escape needs hexadecimal digits")
        digits += reader.take(1)
    number = int(digits, 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise NotACallError("an escape is no character")
    return chr(number)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
