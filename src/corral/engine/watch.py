"""Who wants to know what the engine computes at this moment: in case that it never comes back from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class StepWatch(Protocol):
    """Told of every step, on the engine's thread. A step that raises has no end."""

    def begin(self, request_ids: Iterable[str]) -> None:
        """A step over these requests begins."""

    def end(self) -> None:
        """It is over."""


class NoWatch:
    """Nobody wants to know."""

    def begin(self, request_ids: Iterable[str]) -> None:
        pass

    def end(self) -> None:
        pass
