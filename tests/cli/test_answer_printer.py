from __future__ import annotations

import io
import sys

import pytest

from corral.cli.answer import Piece
from corral.cli.answer_printer import AnswerPrinter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def written(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *pieces: str | Piece, formatted: bool = False) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    printer = AnswerPrinter(is_formatted=formatted)
    for piece in pieces:
        printer.write(Piece(piece) if isinstance(piece, str) else piece)
    printer.end()
    return stream.getvalue()


def test_the_last_line_is_ended_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(io.StringIO(), monkeypatch, "a", "b") == "ab\n"
    assert written(io.StringIO(), monkeypatch, "a\n") == "a\n"
    assert written(io.StringIO(), monkeypatch) == ""


@pytest.mark.parametrize("formatted", [False, True])
def test_a_model_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch, formatted: bool) -> None:
    text = "\x1b]0;title\x07\x1b[2Jred\x9b31m\r\x00\ttab\nnext"
    shown = written(Terminal(), monkeypatch, text, formatted=formatted)
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert written(io.StringIO(), monkeypatch, text) == text + "\n"


def test_a_pipe_gets_what_the_model_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n\n# Head\n**bold**"
    assert written(io.StringIO(), monkeypatch, text, formatted=True) == text + "\n"


def test_thinking_is_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = (Piece(thinking="\nstep one"), Piece(thinking=" two\n"), Piece("\n\nanswer"))
    plain = "Thinking...\nstep one two\n...done thinking.\n\n"
    assert written(io.StringIO(), monkeypatch, *pieces) == f"{plain}\n\nanswer\n"
    dimmed = "\x1b[2mThinking...\nstep one two\n...done thinking.\x1b[0m\n\nanswer\n"
    assert written(Terminal(), monkeypatch, *pieces) == dimmed
    monkeypatch.setenv("NO_COLOR", "1")
    assert written(Terminal(), monkeypatch, *pieces) == f"{plain}answer\n"


def test_thinking_that_was_broken_off_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = written(io.StringIO(), monkeypatch, Piece(thinking="step"))
    assert shown == "Thinking...\nstep\n...done thinking.\n\n"


def test_a_dumb_terminal_is_not_repainted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert written(Terminal(), monkeypatch, "**bold**\n\nmore", formatted=True) == "**bold**\n\nmore\n"
