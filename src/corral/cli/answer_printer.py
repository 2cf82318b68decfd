"""An answer on standard output as it comes: plain for a pipe, Markdown for a person, its thinking apart."""

from __future__ import annotations

import sys
from typing import Protocol, TextIO

from corral.cli.answer import Piece
from corral.cli.terminal import has_colour, is_dumb, is_terminal, without_controls

THINKING = "Thinking..."
DONE_THINKING = "...done thinking."
_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"


class _TextPrinter(Protocol):
    def write(self, text: str) -> None: ...
    def end(self) -> None: ...


class _PlainPrinter:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = "\n"

    def write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
            self._last = text[-1]

    def end(self) -> None:
        """End the last line, if it is open."""
        if self._last != "\n":
            self.write("\n")


class AnswerPrinter:
    """Writes one answer to stdout; a terminal is spared control characters.

    Args:
        is_formatted: Markdown is shown formatted, if stdout is a terminal.
        hides_thinking: the thinking is left out.
    """

    def __init__(self, *, is_formatted: bool = True, hides_thinking: bool = False) -> None:
        self._out = sys.stdout
        self._is_terminal = is_terminal(self._out)
        self._hides_thinking = hides_thinking
        self._thinking: _PlainPrinter | None = None
        self._has_text = False
        if hasattr(self._out, "reconfigure"):
            self._out.reconfigure(errors="replace")  # a character the locale lacks ends no answer
        self._text: _TextPrinter = _PlainPrinter(self._out)
        if is_formatted and self._is_terminal and not is_dumb():
            from corral.cli.markdown import MarkdownPrinter

            self._text = MarkdownPrinter(self._out, has_colour=has_colour())

    def write(self, piece: Piece) -> None:
        if piece.thinking and not self._hides_thinking:
            self._write_thinking(self._shown(piece.thinking))
        if not piece.text:
            return
        text = self._shown(piece.text)
        if self._thinking is not None:
            self._end_thinking()
        if not self._has_text and self._is_terminal:
            text = text.lstrip("\n")
        self._has_text = self._has_text or bool(text)
        self._text.write(text)

    def end(self) -> None:
        """The answer is complete, or given up: its last line is ended."""
        if self._thinking is not None:
            self._end_thinking()
        self._text.end()

    def _shown(self, text: str) -> str:
        return without_controls(text) if self._is_terminal else text

    def _write_thinking(self, text: str) -> None:
        if self._thinking is None:
            self._thinking = _PlainPrinter(self._out)
            if self._has_text:
                self._text.end()
            self._thinking.write(f"{self._style(_DIM)}{THINKING}\n")
            text = text.lstrip("\n")
        self._thinking.write(text)

    def _end_thinking(self) -> None:
        printer, self._thinking = self._thinking, None
        if printer is not None:
            printer.end()
            printer.write(f"{DONE_THINKING}{self._style(_NORMAL)}\n\n")

    def _style(self, code: str) -> str:
        return code if self._is_terminal and has_colour() and not is_dumb() else ""
