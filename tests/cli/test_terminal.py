from __future__ import annotations

import io
import sys

import pytest

from corral.cli.terminal import AnswerPrinter, download_progress, load_progress
from corral.store.status import Status


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *pieces: str) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    printer = AnswerPrinter()
    for piece in pieces:
        printer.write(piece)
    printer.end_line()
    return stream.getvalue()


def test_the_last_line_is_ended_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(io.StringIO(), monkeypatch, "a", "b") == "ab\n"
    assert written(io.StringIO(), monkeypatch, "a\n") == "a\n"
    assert written(io.StringIO(), monkeypatch) == ""


def test_a_model_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\x1b]0;title\x07\x1b[2Jred\x9b31m\r\x00\ttab\nnext"
    assert written(Terminal(), monkeypatch, text) == "]0;title[2Jred31m\ttab\nnext\n"
    assert written(io.StringIO(), monkeypatch, text) == text + "\n"


def test_a_pipe_gets_each_line_once_and_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with download_progress() as on_status:
        on_status(Status("pulling manifest"))
        on_status(Status("pulling 0123456789ab", "sha256:0123456789ab", 100, 0))
        on_status(Status("pulling 0123456789ab", "sha256:0123456789ab", 100, 100))
    with load_progress() as on_load:
        on_load(1, 2)
        on_load.show_plan("the plan")
    assert stderr.getvalue() == "pulling manifest\npulling 0123456789ab\n"


def test_a_person_sees_bars_and_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with download_progress() as on_status:
        on_status(Status("pulling a [bold] file"))
        on_status(Status("pulling 0123456789ab", "sha256:0123456789ab", 100_000_000, 50_000_000))
        on_status(Status("pulling 0123456789ab", "sha256:0123456789ab", 100_000_000, 100_000_000))
    with load_progress() as on_load:
        on_load.show_plan("the plan")
        on_load(1, 2)
    shown = stderr.getvalue()
    for text in ("pulling a [bold] file", "pulling 0123456789ab", "100.0", "the plan", "loading"):
        assert text in shown
