"""Markdown on a terminal while it is being written.

The block under way (a paragraph, a list's item, a table) is shown as it comes, unformatted; once it is complete it is
taken back and printed formatted, for good. So nothing but the live block is ever painted twice, and what stands on the
screen at the end is right whatever the terminal did in between. A block that has outgrown the screen, or that the
terminal was resized under, stays as it was shown. Lines of code are coloured as they come and never taken back.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from typing import TextIO

_FENCE = re.compile(r"\s*(?P<mark>`{3,}|~{3,})(?P<info>[^`]*)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s+\S")
_HEADING = re.compile(r" {0,3}#{1,6}(?:\s|$)")
_CODE_ON, _CODE_OFF = "\x1b[36m", "\x1b[0m"
_MIN_COLUMNS = 20  # below, formatting is no help

Size = Callable[[], tuple[int, int]]  # columns, rows


def terminal_size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.columns, size.lines


class MarkdownPrinter:
    """Takes text in pieces of any length; `end` completes it. `text` has no character that steers a terminal."""

    def __init__(self, out: TextIO, size: Size = terminal_size, *, has_colour: bool = True) -> None:
        self._live = _LiveText(out, size)
        self._out = out
        self._has_colour = has_colour
        self._line = ""  # the line under way
        self._block: list[str] = []  # the whole lines of the block under way
        self._fence = ""  # the mark that will end the code under way
        self._is_in_list = False
        self._is_empty = True  # nothing is printed yet
        self._is_gap_due = False  # an empty line, before whatever comes next

    def write(self, text: str) -> None:
        while text:
            head, newline, text = text.partition("\n")
            self._add(head.replace("\t", "    "))
            if newline:
                self._end_line()

    def end(self) -> None:
        if self._line:
            self._end_line()
        self._flush()

    def _add(self, text: str) -> None:
        if not text:
            return
        shown = text
        if not self._line.strip():
            shown = self._line + text
            if not shown.strip():  # it may be an empty line
                self._line = shown
                return
            self._open_gap()
        elif self._fence and self._may_close(self._line):
            shown = self._line + text  # held back so far
        self._line += text
        if self._fence:
            if not self._may_close(self._line):
                self._code(shown)
        else:
            self._live.put(shown)

    def _end_line(self) -> None:
        line, self._line = self._line, ""
        if self._fence:
            self._end_code_line(line)
        elif not line.strip():
            self._flush()
            self._is_gap_due = not self._is_empty
        elif fence := _FENCE.fullmatch(line):
            self._flush(without_last_row=True)
            self._fence = fence["mark"]
        else:
            if self._block and (_HEADING.match(line) or _ITEM.match(line)):
                self._flush(line)
            self._block.append(line)
            self._live.put("\n")
            if _HEADING.match(line):
                self._flush()

    def _end_code_line(self, line: str) -> None:
        if self._closes(line):
            self._fence = ""
            return
        if not line.strip():
            self._open_gap()
        elif self._may_close(line):
            self._code(line)
        self._out.write("\n")
        self._out.flush()
        self._is_empty = False

    def _may_close(self, line: str) -> bool:
        """So far it could become the end of the code."""
        return not line.strip().strip(self._fence[0])

    def _closes(self, line: str) -> bool:
        return len(line.strip()) >= len(self._fence) and self._may_close(line)

    def _code(self, text: str) -> None:
        self._out.write(f"{_CODE_ON}{text}{_CODE_OFF}" if self._has_colour else text)
        self._out.flush()

    def _open_gap(self) -> None:
        if self._is_gap_due:
            self._out.write("\n")
            self._is_gap_due = False

    def _flush(self, next_line: str = "", *, without_last_row: bool = False) -> None:
        """Prints the block for good; `next_line`, already on the screen below it, becomes the live one."""
        block, self._block = self._block, []
        if not self._live.is_empty and (block or without_last_row):
            if self._live.take_back():
                self._print(block)
            else:
                self._out.write("\n" if self._live.column else "")
                next_line = ""
            self._live.start()
            self._live.put(next_line)
        self._is_empty = self._is_empty and not block

    def _print(self, block: list[str]) -> None:
        if not block:
            return
        indent = min(len(line) - len(line.lstrip(" ")) for line in block)
        is_item = _ITEM.match(block[0]) is not None
        self._is_in_list = is_item or (self._is_in_list and indent > 0)
        columns = self._live.columns - indent - 1
        if columns < _MIN_COLUMNS or (indent >= 4 and not self._is_in_list):
            lines = block  # code by its indentation
        else:
            from corral.cli.markdown_blocks import render

            lines = [" " * indent + line for line in render("\n".join(line[indent:] for line in block), columns)]
        self._out.write("".join(f"{line}\n" for line in lines))
        self._out.flush()


class _LiveText:
    """Text that can be taken back: it breaks its lines itself, so that it knows how many rows it takes."""

    def __init__(self, out: TextIO, size: Size) -> None:
        self._out = out
        self._size = size
        self.start()

    def start(self) -> None:
        """From here on; the cursor is in the first column."""
        self.columns, self._rows = self._size()
        self.column = 0
        self._row = 0
        self.is_empty = True

    def put(self, text: str) -> None:
        if not text:
            return
        if self.is_empty:
            self.start()
        self.is_empty = False
        pieces = []
        for character in text:
            width = _width(character)
            if character == "\n" or self.column + width >= self.columns:
                self._row += 1
                self.column = 0
                pieces.append("\n")
            if character != "\n":
                self.column += width
                pieces.append(character)
        self._out.write("".join(pieces))
        self._out.flush()

    def take_back(self) -> bool:
        """Clears it from the screen; False if some of it is out of reach."""
        if self._size() != (self.columns, self._rows) or self._row >= self._rows - 1:
            return False
        self._out.write(f"\r\x1b[{self._row}A\x1b[J" if self._row else "\r\x1b[J")
        return True


def _width(character: str) -> int:
    if " " <= character <= "~":
        return 1
    from rich.cells import get_character_cell_size

    return max(get_character_cell_size(character), 0)
