"""How a long operation on the store is shown: bars in Ollama's shape for a person, a line a step for a pipe."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from corral.cli import human
from corral.cli.terminal import is_dumb, is_terminal, warn

if TYPE_CHECKING:
    from corral.store.status import OnStatus, Status

_REPAINT_S = 0.1
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MIN_BAR = 5  # cells; with fewer there is no bar
Clock = Callable[[], float]


@contextlib.contextmanager
def show_status(say: Callable[[str], None] | None = None) -> Iterator[OnStatus]:
    """What is to be called with every Status; what it has shown stays.

    Args:
        say: gets a line a step in place of the terminal.
    """
    if say is not None or not is_terminal(sys.stderr) or is_dumb():
        yield _Lines(say or warn)
        return
    screen = StatusScreen(sys.stderr)
    try:
        yield screen
    finally:
        screen.end()


class _Lines:
    """Each step once; a layer again when it is whole."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[tuple[str, bool]] = set()

    def __call__(self, status: Status) -> None:
        is_whole = status.total > 0 and status.completed >= status.total
        if (status.status, is_whole) in self._told:
            return
        self._told |= {(status.status, is_whole), (status.status, False)}
        amount = f": {human.size(status.total)}" if status.total else ""
        self._say(f"{human.printable(status.status)}{amount}{', done' if is_whole else ''}")


class StatusScreen:
    """A line for each step, repainted in place while they change."""

    def __init__(self, out: TextIO, clock: Clock = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._steps: dict[str, _Step] = {}
        self._num_painted = 0
        self._painted_at = float("-inf")

    def __call__(self, status: Status) -> None:
        now = self._clock()
        step = self._steps.get(status.status)
        if step is None:
            for other in self._steps.values():
                other.is_over = other.is_over or not other.total
            step = self._steps[status.status] = _Step(human.printable(status.status), status.completed, now)
            self._painted_at = float("-inf")
        is_whole = step.update(status)
        if is_whole or now - self._painted_at >= _REPAINT_S:
            self._paint(now)

    def end(self) -> None:
        for step in self._steps.values():
            step.is_over = True
        self._paint(self._clock())

    def _paint(self, now: float) -> None:
        if not self._steps:
            return
        size = shutil.get_terminal_size()
        lines = [step.line(size.columns - 1, now) for step in self._steps.values()]
        up = f"\x1b[{self._num_painted}A" if self._num_painted else ""
        self._out.write(f"\r{up}" + "".join(f"{line}\x1b[K\n" for line in lines))
        self._out.flush()
        self._num_painted = len(lines)
        self._painted_at = now
        self._leave_behind(len(lines) - (size.lines - 1))

    def _leave_behind(self, num_steps: int) -> None:
        """Steps above the screen's edge cannot be repainted: they stay as they are."""
        for name in list(self._steps)[: max(num_steps, 0)]:
            del self._steps[name]
            self._num_painted -= 1


class _Step:
    def __init__(self, label: str, completed: int, now: float) -> None:
        self.label = label
        self.total = 0
        self.completed = completed
        self.is_over = False
        self._first = completed  # what an earlier try has left is no part of the speed
        self._started_at = now

    def update(self, status: Status) -> bool:
        """Whether it has become whole."""
        was_whole = self._is_whole
        self.total, self.completed = status.total, status.completed
        return self._is_whole and not was_whole

    @property
    def _is_whole(self) -> bool:
        return self.total > 0 and self.completed >= self.total

    def line(self, columns: int, now: float) -> str:
        if not self.total:
            spinner = "" if self.is_over else f" {_SPINNER[int(now / _REPAINT_S) % len(_SPINNER)]}"
            return f"{self.label}{spinner}"[:columns]
        share = min(self.completed / self.total, 1.0)
        head = f"{self.label}: {share:4.0%} "
        tail = f" {self._amounts(now)}"
        width = columns - len(head) - len(tail) - 2
        return (f"{head}{_bar(share, width)}{tail}" if width >= _MIN_BAR else f"{head}{tail.strip()}")[:columns]

    def _amounts(self, now: float) -> str:
        if self._is_whole:
            return f"{human.size(self.total):>7}"
        elapsed_s = now - self._started_at
        rate = (self.completed - self._first) / elapsed_s if elapsed_s > 0 else 0.0
        speed = f"{human.size(rate)}/s" if rate else ""
        left = human.clock((self.total - self.completed) / rate) if rate else ""
        return f"{human.size(self.completed)}/{human.size(self.total)}  {speed:>8}  {left:>6}"


def _bar(share: float, width: int) -> str:
    filled = int(share * width)
    return f"▕{'█' * filled}{' ' * (width - filled)}▏"
