"""What a person at a terminal sees besides the answer: progress on stderr, and nothing that a model could do to it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from corral.config import terminal_type, wants_no_colour

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

# Everything that steers a terminal, but for line feed and tab: what a model writes is text.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
del _CONTROLS[ord("\n")], _CONTROLS[ord("\t")]


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def notice(text: str) -> None:
    """A line for whoever watches; a pipe does not get it."""
    if is_terminal(sys.stderr):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def warn(text: str) -> None:
    """A line that matters to scripts as well."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def without_controls(text: str) -> str:
    return text.translate(_CONTROLS)


def is_dumb() -> bool:
    """A terminal that cannot move its cursor."""
    return terminal_type() in ("", "dumb")


def has_colour() -> bool:
    """Colours are not switched off (https://no-color.org)."""
    return not wants_no_colour()


@contextlib.contextmanager
def load_progress() -> Iterator[LoadProgress]:
    """A bar while weights are loaded, for a person; gone when it is done."""
    if not is_terminal(sys.stderr):
        yield LoadProgress(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("loading"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield LoadProgress(bars)


class LoadProgress:
    """Called with (bytes loaded, bytes in all)."""

    def __init__(self, bars: Bars | None) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None) if bars is not None else None

    def __call__(self, done: int, total: int) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def show_plan(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
