"""How a worker ended, and whom that may be laid upon."""

from __future__ import annotations

import enum
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corral.worker.step_record import Doing, key_of


class DeathKind(enum.Enum):
    """CLOSED is our own doing; KILLED came from outside and says nothing about what the worker was doing."""

    CLOSED = "closed"
    KILLED = "killed"
    OUT_OF_MEMORY = "out of memory"
    HUNG = "hung"
    FAULT = "fault"  # a signal of its own, or an exit that nobody asked for


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a worker.

    Args:
        cause: exit code or signal, and its last words.
        doing: what it was doing.
    """

    kind: DeathKind
    cause: str
    doing: Doing = field(default_factory=Doing)

    def involves(self, request_id: str) -> bool:
        """Whether the request was being computed or prepared."""
        return key_of(request_id) in self.doing.keys


def kind_of_end(returncode: int | None, *, was_hung: bool, num_oom_kills: int) -> DeathKind:
    """What the exit code says.

    Args:
        was_hung: we killed it because it made no progress.
        num_oom_kills: processes that the system has killed for want of memory meanwhile.
    """
    if was_hung:
        return DeathKind.HUNG
    if returncode == -signal.SIGKILL:
        return DeathKind.OUT_OF_MEMORY if num_oom_kills > 0 else DeathKind.KILLED
    return DeathKind.FAULT


def count_oom_kills() -> int:
    """Processes that the system has ever killed for want of memory: the largest of what the kernel and our groups say.

    0 where it does not tell.
    """
    return max(_oom_kills(), default=0)


def _oom_kills() -> Iterator[int]:
    files = [Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")]
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    for line in groups:
        folder = line.rpartition(":")[2].strip("/")
        if folder:
            files.append(Path("/sys/fs/cgroup") / folder / "memory.events")
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, number = line.partition(" ")
            if name == "oom_kill" and number.isdigit():
                yield int(number)
