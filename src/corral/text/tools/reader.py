"""What a style's program reads calls with: the answer's text, as far as it has come."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TypeVar

from corral.text.markers import Openings
from corral.text.tools.gains import Gains
from corral.text.tools.json_scanner import JSONScanner, NotJSONError, read_json
from corral.text.tools.offered import OfferedTools

MAX_NAME = 256  # characters; a longer one is no tool's and no parameter's
_SPACE = re.compile(r"\s*")
_BARE = re.compile(r"[^\s{}()\[\],:=\"'<>`|;]*")

_T = TypeVar("_T")
Reading = Generator[None, None, _T]  # pauses wherever it needs more text than there is


class NotACallError(Exception):
    """What looked like a call is none."""


class EnoughError(Exception):
    """The answer's only call is complete."""


class Reader(Gains):
    """One answer's text. A style's program takes it piece by piece, and says what it has found.

    Every operation depends on the text alone, never on the pieces it came in, and looks at each character a bounded
    number of times.

    Args:
        tools: what may be called.
    """

    def __init__(self, tools: OfferedTools) -> None:
        super().__init__()
        self.tools = tools
        self.is_over = False  # no more text comes
        self._text = ""
        self._position = 0
        self._raw: list[str] = []  # of what may be a call, from its beginning on
        self._space: list[str] = []  # not shown yet: before a call it is dropped
        self._arguments: list[str] = []
        self.num_whole = 0

    def add(self, text: str) -> None:
        """The text goes on."""
        self._text = self._text[self._position :] + text
        self._position = 0

    def more(self) -> Reading[bool]:
        """Waits for more text; False if none comes."""
        if self.is_over:
            return False
        yield
        return True

    def peek(self) -> Reading[str]:
        """The next character; empty at the end."""
        while self._position == len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self._position]

    def take(self, count: int) -> str:
        """The next characters, which are known to be there."""
        taken = self._text[self._position : self._position + count]
        self._position += len(taken)
        self._raw.append(taken)
        return taken

    def skip_space(self) -> Reading[None]:
        yield from self._run(_SPACE)

    def bare_word(self) -> Reading[str]:
        """Characters that are neither white space nor punctuation of any notation. Raises NotACallError: too many."""
        return (yield from self._run(_BARE, MAX_NAME))

    def _run(self, pattern: re.Pattern[str], limit: int | None = None) -> Reading[str]:
        parts: list[str] = []
        room = limit
        while True:
            end = len(self._text) if room is None else min(len(self._text), self._position + room)
            match = pattern.match(self._text, self._position, end)
            if match and match.end() > self._position:
                parts.append(self.take(match.end() - self._position))
                room = None if room is None else room - len(parts[-1])
            if room == 0:
                raise NotACallError("a name is too long")
            if self._position < len(self._text) or not (yield from self.more()):
                return "".join(parts)

    def one_of(self, *texts: str) -> Reading[str]:
        """Takes the longest of `texts` that comes next; none of them and nothing taken gives an empty text."""
        longest = max(map(len, texts))
        while True:
            ahead = self._text[self._position : self._position + longest]
            is_open = any(len(text) > len(ahead) and text.startswith(ahead) for text in texts)
            if not is_open or not (yield from self.more()):
                found = max((text for text in texts if ahead.startswith(text)), key=len, default="")
                self.take(len(found))
                return found

    def expect(self, *texts: str) -> Reading[str]:
        """Takes the longest of `texts` that comes next. Raises NotACallError: none does."""
        found = yield from self.one_of(*texts)
        if not found:
            raise NotACallError(f"{texts[0]!r} is missing")
        return found

    def until(self, *ends: str) -> Reading[tuple[str, str]]:
        """(the text before the first of `ends`, that end), both taken. Raises NotACallError: no end comes."""
        search = re.compile("|".join(map(re.escape, ends))).search
        held = max(map(len, ends)) - 1
        parts: list[str] = []
        while True:
            match = search(self._text, self._position)
            if match is not None:
                parts.append(self.take(match.start() - self._position))
                return "".join(parts), self.take(match.end() - match.start())
            parts.append(self.take(max(len(self._text) - held - self._position, 0)))
            if not (yield from self.more()):
                self.take(held)
                raise NotACallError(f"{ends[0]!r} is missing")

    def name_until(self, *ends: str) -> Reading[tuple[str, str]]:
        """As `until`, of a short text. Raises NotACallError, with nothing taken: no end comes soon enough."""
        search = re.compile("|".join(map(re.escape, ends))).search
        while True:
            match = search(self._text, self._position)
            if match is not None and match.start() - self._position <= MAX_NAME:
                return self.take(match.start() - self._position), self.take(match.end() - match.start())
            if len(self._text) - self._position >= MAX_NAME + max(map(len, ends)) or not (yield from self.more()):
                raise NotACallError(f"{ends[0]!r} is missing")

    def json(self, *, is_told: bool = False) -> Reading[str]:
        """Takes a JSON value and returns it, or tells it as arguments, as it comes.

        Raises:
            NotACallError: it is none.
        """
        scanner = JSONScanner()
        parts: list[str] = []
        while True:
            try:
                end, found = scanner.feed(self._text, self._position)
            except NotJSONError as error:
                self.take(error.position - self._position)
                raise NotACallError(str(error)) from error
            self.take(end - self._position)
            if is_told:
                self.give(found)
            else:
                parts.append(found)
            if scanner.is_done:
                return "".join(parts)
            if not (yield from self.more()):
                raise NotACallError("the text ends within a value")

    def content(self, openings: Openings) -> Reading[str]:
        """Shows text up to the next opening, which is taken; but not the white space before it. Empty at the end."""
        while True:
            match = openings.search(self._text, self._position)
            end = match.start() if match else len(self._text) - openings.num_open(self._text, self._position)
            self._show_but_space(self._text[self._position : end])
            self._position = end
            if match:
                self.mark()
                return self.take(match.end() - match.start())
            if not (yield from self.more()):
                self._show_but_space(self._text[self._position :])
                self._position = len(self._text)
                if not self.num_whole:
                    self.show("".join(self._space))
                return ""

    def space(self) -> Reading[str]:
        """Holds back the white space that comes next, as `content` does; returns the character after it."""
        character = yield from self.peek()
        while character.isspace():
            self._space.append(character)
            self._position += 1
            character = yield from self.peek()
        return character

    def mark(self) -> None:
        """What may be a call begins here, with the white space before it."""
        self._raw, self._space = ["".join(self._space)], []

    def _show_but_space(self, text: str) -> None:
        body = text.rstrip()
        if body:
            self.show("".join((*self._space, body)))
            self._space = []
        if len(body) < len(text):
            self._space.append(text[len(body) :])

    def begin(self, name: str) -> None:
        """A call of that tool begins. Raises NotACallError: there is no such tool."""
        if name not in self.tools:
            raise NotACallError(f"{name!r:.80} is no tool")
        self.announce(name)
        self._arguments = []

    def give(self, arguments: str) -> None:
        """More of the arguments' JSON."""
        self._arguments.append(arguments)
        self.gain_arguments(arguments)

    def whole(self) -> None:
        """The call is complete.

        Raises:
            NotACallError: its arguments are no JSON object after all.
            EnoughError: the answer may have no other.
        """
        try:
            arguments = read_json("".join(self._arguments))
        except NotJSONError as error:
            raise NotACallError(str(error)) from error
        if not isinstance(arguments, dict):
            raise NotACallError("the arguments are no object")
        self.complete()
        self._raw = []
        self.num_whole += 1
        if not self.tools.is_parallel:
            raise EnoughError

    def fail(self, *, is_cut: bool) -> None:
        """It was no call: its text is content. A call that was told and then cut off stays as it is."""
        self.break_off("".join(self._raw), is_cut=is_cut)
        self._raw = []
