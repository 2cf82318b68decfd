"""llama.cpp's grammars, GBNF, in llguidance's Lark."""

from __future__ import annotations

import re

from corral.errors import InvalidRequest
from corral.text.grammar.vocabulary import lark_text

MAX_NESTING = 100  # groups in groups
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TIMES = re.compile(r"\{[ \t]*(\d{1,6})[ \t]*(?:(,)[ \t]*(\d{1,6})?[ \t]*)?\}")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([nrt\\\"\[\]\-^]))")
_PLAIN = {"n": "\n", "r": "\r", "t": "\t"}


def lark_of_gbnf(source: str) -> str:
    """The same grammar; its rule `root` is `start`.

    Raises:
        InvalidRequest: it is no GBNF; says in which line, and why.
    """
    return _Reader(source).grammar()


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}  # GBNF's -> Lark's
        self._used: dict[str, int] = {}  # where it stands first

    def grammar(self) -> str:
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._source):
            self._rule()
            self._skip(_SPACE_AND_LINES)
        if "root" not in self._rules:
            self._at = len(self._source)
            raise self._fault("there is no rule root; it is what the answer must match")
        for name, at in self._used.items():
            if name not in self._rules:
                self._at = at
                raise self._fault(f"there is no rule {name}")
        rules = "\n".join(f"{self._lark_name(name)}: {body}" for name, body in self._rules.items())
        return f"start: {self._lark_name('root')}\n{rules}\n"

    def _rule(self) -> None:
        begin = self._at
        name = self._name()
        if name in self._rules:
            self._at = begin
            raise self._fault(f"the rule {name} is there twice")
        self._skip(_SPACE)
        if not self._source.startswith("::=", self._at):
            raise self._fault(f"::= must follow the rule's name {name}")
        self._at += 3
        self._skip(_SPACE_AND_LINES)
        self._rules[name] = self._alternatives(0)
        if self._at < len(self._source) and self._source[self._at] not in "\r\n":
            raise self._fault(f"{self._source[self._at]!r} is not expected here")

    def _alternatives(self, depth: int) -> str:
        if depth > MAX_NESTING:
            raise self._fault(f"groups may be nested {MAX_NESTING} deep")
        alternatives = [self._sequence(depth)]
        while self._source.startswith("|", self._at):
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            alternatives.append(self._sequence(depth))
        return " | ".join(alternatives)

    def _sequence(self, depth: int) -> str:
        space = _SPACE_AND_LINES if depth else _SPACE
        items: list[str] = []
        while self._at < len(self._source):
            item = self._item(depth)
            if item is None:
                break
            items.append(item + self._times())
            self._skip(space)
        return " ".join(items) or '""'

    def _item(self, depth: int) -> str | None:
        character = self._source[self._at]
        if character == '"':
            return self._literal()
        if character == "[":
            return self._characters()
        if character == ".":
            self._at += 1
            return r"/[\s\S]/"
        if character == "(":
            opened = self._at
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            inner = self._alternatives(depth + 1)
            if not self._source.startswith(")", self._at):
                self._at = min(self._at, len(self._source))
                raise self._fault(f"the group of line {self._line(opened)} is not closed")
            self._at += 1
            return f"({inner})"
        if _NAME.match(character):
            at = self._at
            name = self._name()
            self._used.setdefault(name, at)
            return self._lark_name(name)
        return None

    def _times(self) -> str:
        if self._source[self._at : self._at + 1] in ("*", "+", "?") and self._at < len(self._source):
            self._at += 1
            return self._source[self._at - 1]
        if not self._source.startswith("{", self._at):
            return ""
        found = _TIMES.match(self._source, self._at)
        if found is None:
            raise self._fault("a repetition is {3}, {3,} or {3,5}")
        self._at = found.end()
        least, comma, most = found.groups()
        if most is not None and int(most) < int(least):
            raise self._fault(f"the repetition {found[0]} ends before it begins")
        return f"{{{int(least)},{'' if most is None else int(most)}}}" if comma else f"{{{int(least)}}}"

    def _literal(self) -> str:
        opened = self._at
        self._at += 1
        text: list[str] = []
        while not self._source.startswith('"', self._at):
            text.append(self._character(opened, "text"))
        self._at += 1
        return lark_text("".join(text))

    def _characters(self) -> str:
        opened = self._at
        self._at += 1
        is_negated = self._source.startswith("^", self._at)
        self._at += is_negated
        ranges: list[str] = []
        while not self._source.startswith("]", self._at):
            first = last = self._character(opened, "set of characters")
            is_range = self._source.startswith("-", self._at) and not self._source.startswith("-]", self._at)
            if is_range:
                self._at += 1
                last = self._character(opened, "set of characters")
                if last < first:
                    raise self._fault(f"the range {first!r}-{last!r} ends before it begins")
            ranges.append(_code(first) + (f"-{_code(last)}" if is_range else ""))
        self._at += 1
        if not ranges:
            if is_negated:
                return r"/[\s\S]/"
            raise self._fault("a set of characters is empty")
        return f"/[{'^' if is_negated else ''}{''.join(ranges)}]/"

    def _character(self, opened: int, what: str) -> str:
        if self._at >= len(self._source) or self._source[self._at] in "\r\n":
            raise self._fault(f"the {what} of line {self._line(opened)} is not closed")
        if self._source[self._at] != "\\":
            self._at += 1
            return self._source[self._at - 1]
        found = _ESCAPE.match(self._source, self._at)
        if found is None:
            raise self._fault(f"{self._source[self._at : self._at + 2]} is no escape of GBNF")
        code = found[1] or found[2] or found[3]
        if code is not None and (int(code, 16) > 0x10FFFF or 0xD800 <= int(code, 16) <= 0xDFFF):
            raise self._fault(f"{found[0]} is no character")
        self._at = found.end()
        return chr(int(code, 16)) if code is not None else _PLAIN.get(found[4], found[4])

    def _name(self) -> str:
        found = _NAME.match(self._source, self._at)
        if found is None:
            raise self._fault("the name of a rule is expected here")
        self._at = found.end()
        return found[0]

    def _lark_name(self, name: str) -> str:
        return self._names.setdefault(name, f"r{len(self._names)}")

    def _skip(self, space: re.Pattern[str]) -> None:
        found = space.match(self._source, self._at)
        self._at = found.end() if found is not None else self._at

    def _line(self, at: int) -> int:
        return self._source.count("\n", 0, at) + 1

    def _fault(self, fault: str) -> InvalidRequest:
        return InvalidRequest(f"the GBNF grammar is wrong in line {self._line(self._at)}: {fault}", param="grammar")


def _code(character: str) -> str:
    return f"\\x{{{ord(character):X}}}"
