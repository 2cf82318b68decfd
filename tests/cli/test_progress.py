from __future__ import annotations

import io
import sys

import pytest

from corral.cli.progress import StatusScreen, show_status
from corral.store.status import Status
from tests.cli.test_markdown import Screen

DIGEST = "sha256:" + "ab" * 32


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "10")
    return 80


def lines(out: io.StringIO) -> list[str]:
    screen = Screen(200)
    screen.feed(out.getvalue())
    return screen.text.rstrip("\n").split("\n")


def test_a_bar_in_ollamas_shape(columns: int) -> None:
    out, clock = io.StringIO(), Clock()
    screen = StatusScreen(out, clock)
    screen(Status("pulling manifest"))
    screen(Status("pulling abababababab", DIGEST, 2_000_000_000, 0))
    clock.now = 10.0
    screen(Status("pulling abababababab", DIGEST, 2_000_000_000, 500_000_000))
    manifest, bar = lines(out)
    assert manifest == "pulling manifest"
    assert bar.startswith("pulling abababababab:  25% ▕███")
    assert bar.endswith("▏ 500 MB/2 GB   50 MB/s     30s")
    assert len(bar) == columns - 1
    screen(Status("pulling abababababab", DIGEST, 2_000_000_000, 2_000_000_000))
    screen(Status("success"))
    screen.end()
    done = lines(out)
    assert done[1].startswith("pulling abababababab: 100% ▕█████")
    assert done[1].endswith("█▏    2 GB")
    assert done[2] == "success"


def test_what_was_there_before_counts_for_no_speed(columns: int) -> None:
    out, clock = io.StringIO(), Clock()
    screen = StatusScreen(out, clock)
    screen(Status("pulling abababababab", DIGEST, 1000, 900))
    clock.now = 1.0
    screen(Status("pulling abababababab", DIGEST, 1000, 950))
    assert lines(out)[0].endswith("50 B/s      1s")


def test_it_is_painted_ten_times_a_second_at_most(columns: int) -> None:
    out, clock = io.StringIO(), Clock()
    screen = StatusScreen(out, clock)
    screen(Status("pulling abababababab", DIGEST, 1000, 1))
    before = len(out.getvalue())
    clock.now = 0.05
    screen(Status("pulling abababababab", DIGEST, 1000, 2))
    assert len(out.getvalue()) == before
    screen(Status("pulling abababababab", DIGEST, 1000, 1000))
    assert "100%" in out.getvalue()


def test_more_steps_than_the_screen_has_rows(columns: int) -> None:
    out = io.StringIO()
    screen = StatusScreen(out, Clock())
    names = [f"pulling {number:012x}" for number in range(30)]
    for name in names:
        screen(Status(name, DIGEST, 10, 10))
    screen.end()
    shown = lines(out)
    assert [line.partition(":")[0] for line in shown] == names


def test_a_narrow_terminal_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    out = io.StringIO()
    StatusScreen(out, Clock())(Status("pulling abababababab", DIGEST, 1000, 500))
    assert "▕" not in out.getvalue()
    assert all(len(line) < 30 for line in lines(out))


def test_a_pipe_gets_a_line_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with show_status() as on_status:
        on_status(Status("pulling manifest"))
        for completed in (0, 500, 1000):
            on_status(Status("pulling abababababab", DIGEST, 1000, completed))
        on_status(Status("success\x1b[2J"))
    assert stderr.getvalue().splitlines() == [
        "pulling manifest",
        "pulling abababababab: 1 KB",
        "pulling abababababab: 1 KB, done",
        "success?[2J",
    ]


def test_a_person_gets_a_screen(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with show_status() as on_status:
        on_status(Status("pulling abababababab", DIGEST, 1000, 500))
    assert "▕" in stderr.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    stderr.truncate(0)
    with show_status() as on_status:
        on_status(Status("pulling abababababab", DIGEST, 1000, 500))
    assert "\x1b" not in stderr.getvalue()
