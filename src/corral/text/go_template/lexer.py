"""Source -> texts and actions, as Go's text/template cuts them: trim markers, comments, tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from corral.text.go_template.nodes import GoTemplateError

_SPACE = " \t\r\n"
_MAX_NUMBER = 40  # characters
_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<field>\.[^\W\d]\w*)
  | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?!\w))
  | (?P<variable>\$\w*)
  | (?P<name>[^\W\d]\w*)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<raw>`[^`]*`)
  | (?P<char>'(?:[^'\\\n]|\\[^\n][^'\n]*)')
  | (?P<sign>:=|[=|(),.])
    """,
    re.VERBOSE,
)
_COMMENT = re.compile(r"\{\{(?:-[ \t\r\n]+)?/\*")
_COMMENT_END = re.compile(r"(?:[ \t\r\n]+(-))?\}\}")
_ESCAPE = re.compile(
    r"""\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\\'"])|(.|$))""", re.DOTALL
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is field, number, variable, name, string or sign; `value` what it says or means."""

    kind: str
    value: Any
    line: int
    is_spaced: bool  # white space stands before it


@dataclass(frozen=True, slots=True)
class Piece:
    """A text between actions, or the tokens of one action (`text` is None then)."""

    line: int
    text: str | None
    tokens: tuple[Token, ...] = ()


def cut(source: str) -> Iterator[Piece]:
    """The pieces of a template in order.

    Raises:
        GoTemplateError: an action that does not end, or a character that no action may hold.
    """
    position, line, trims = 0, 1, False
    while True:
        begin = source.find("{{", position)
        text = source[position:] if begin < 0 else source[position:begin]
        shown = text.lstrip(_SPACE) if trims else text
        if begin < 0:
            if shown:
                yield Piece(line, shown)
            return
        inside = begin + 2
        if source[inside : inside + 1] == "-" and source[inside + 1 : inside + 2] in tuple(_SPACE):
            inside += 1
            shown = shown.rstrip(_SPACE)
        if shown:
            yield Piece(line, shown)
        line += text.count("\n")
        # A comment follows the brace, or the trim marker and its white space, at once.
        comment = _COMMENT.match(source, begin)
        if comment is not None:
            end, trims = _comment_end(source, comment.end(), line)
        else:
            tokens, end, trims = _tokens(source, inside, line)
            yield Piece(line, None, tokens)
        line += source.count("\n", begin, end)
        position = end


def _comment_end(source: str, begin: int, line: int) -> tuple[int, bool]:
    """Position after the comment's action, and whether it trims what follows."""
    close = source.find("*/", begin)
    if close < 0:
        raise GoTemplateError(line, "a comment is not closed")
    rest = _COMMENT_END.match(source, close + 2)
    if rest is None:
        raise GoTemplateError(line, "a comment must end at its action's end: */}} or */ -}}")
    return rest.end(), rest[1] is not None


def _tokens(source: str, position: int, line: int) -> tuple[tuple[Token, ...], int, bool]:
    tokens: list[Token] = []
    begun, is_spaced = line, False
    while True:
        if source.startswith("}}", position):
            return tuple(tokens), position + 2, False
        if is_spaced and source.startswith("-}}", position):
            return tuple(tokens), position + 3, True
        match = _TOKEN.match(source, position)
        if match is None:
            raise _bad_token(source, position, begun, line)
        kind, text = match.lastgroup or "", match[0]
        position = match.end()
        if kind == "space":
            is_spaced = True
        else:
            tokens.append(_token(kind, text, line, is_spaced))
            is_spaced = False
        line += text.count("\n")


def _bad_token(source: str, position: int, begun: int, line: int) -> GoTemplateError:
    if position >= len(source):
        return GoTemplateError(begun, "an action is not closed by }}")
    character = source[position]
    if character in "\"`'":
        return GoTemplateError(line, "a quoted text is not closed")
    return GoTemplateError(line, f"an action cannot hold {source[position : position + 12].split()[0]!r}")


def _token(kind: str, text: str, line: int, is_spaced: bool) -> Token:
    value: Any = text
    if kind in ("field", "variable"):
        value = text[1:]
    elif kind == "number":
        value = _number(text, line)
    elif kind == "string":
        value = _unquoted(text[1:-1], line)
    elif kind == "raw":
        kind, value = "string", text[1:-1]
    elif kind == "char":
        character = _unquoted(text[1:-1], line)
        if len(character) != 1:
            raise GoTemplateError(line, f"{text:.20} must be one character")
        kind, value = "number", ord(character)
    return Token(kind, value, line, is_spaced)


def _number(text: str, line: int) -> int | float:
    digits = text.replace("_", "")
    try:
        if len(text) > _MAX_NUMBER:
            raise ValueError
        if re.fullmatch(r"[+-]?0[0-7]+", digits):
            return int(digits, 8)
        is_float = not re.match(r"[+-]?0[xXoObB]", digits) and re.search(r"[.eE]", digits) is not None
        return float(digits) if is_float else int(digits, 0)
    except ValueError:
        raise GoTemplateError(line, f"{text:.60} is no number") from None


def _unquoted(text: str, line: int) -> str:
    """The text that Go's escapes stand for; \\x and octal bytes together make UTF-8."""
    if "\\" not in text:
        return text

    def meant(match: re.Match[str]) -> str:
        byte, short, long, octal, simple, other = match.groups()
        if other is not None:
            raise GoTemplateError(line, f"the escape \\{other} in a text is not known")
        if simple is not None:
            return _SIMPLE.get(simple, simple)
        if short or long:
            code = int(short or long, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise GoTemplateError(line, f"\\u{short or long} is no character")
            return chr(code)
        code = int(byte, 16) if byte else int(octal, 8)
        if code > 255:
            raise GoTemplateError(line, f"\\{octal} is no byte")
        return chr(code) if code < 0x80 else chr(0xDC00 + code)  # surrogateescape: a byte, until the text is whole

    return _ESCAPE.sub(meant, text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
