"""What a person at a terminal sees besides the answer: progress on stderr, and nothing that a model could do to it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from corral.store.status import OnStatus, Status

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


class AnswerPrinter:
    """Writes an answer to stdout as it comes; a terminal is spared control characters."""

    def __init__(self) -> None:
        self._is_terminal = is_terminal(sys.stdout)
        self._last = "\n"
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a character the locale lacks ends no answer

    def write(self, text: str) -> None:
        shown = text.translate(_CONTROLS) if self._is_terminal else text
        if shown:
            sys.stdout.write(shown)
            sys.stdout.flush()
            self._last = shown[-1]

    def end_line(self) -> None:
        """End the last line, if it is open."""
        if self._last != "\n":
            self.write("\n")


@contextlib.contextmanager
def download_progress() -> Iterator[OnStatus]:
    """A bar with size, speed and time left for a person; for a pipe, each line once."""
    if not is_terminal(sys.stderr):
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        yield _DownloadBars(bars)


class _Lines:
    """Each status once: a bar's many steps are one line."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, told: Status, /) -> None:
        if told.status not in self._seen:
            self._seen.add(told.status)
            warn(told.status)


class _DownloadBars:
    """One bar a blob; mere notices are printed above them."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, told: Status, /) -> None:
        if not told.digest:
            self._bars.console.print(told.status, markup=False, highlight=False)
            return
        if told.digest not in self._tasks:
            self._tasks[told.digest] = self._bars.add_task(told.status, total=told.total or None)
        self._bars.update(self._tasks[told.digest], completed=told.completed, total=told.total or None)


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
