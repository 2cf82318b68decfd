from __future__ import annotations

import io
import sys

import pytest

from corral.cli.terminal import load_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with load_progress() as on_load:
        on_load(1, 2)
        on_load.show_plan("the plan")
    assert stderr.getvalue() == ""


def test_a_person_sees_a_bar_and_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with load_progress() as on_load:
        on_load.show_plan("the plan")
        on_load(1, 2)
    assert "the plan" in stderr.getvalue()
    assert "loading" in stderr.getvalue()
