"""How much memory all workers together may take, and how much each takes now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from corral.model.memory import MemoryStatus

RESERVE_SHARE = 0.05  # of the machine's memory stays free for others
RESERVE_BYTES = 1 << 30  # but no more than this


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Bytes of a worker process.

    Args:
        resident: what it really occupies; pages shared with other processes count in parts where the system tells.
        private: of these, what the machine would have free again without it: not the pages of files, which are
            counted as free already.
    """

    resident: int = 0
    private: int = 0


class MemoryProbe(Protocol):
    """Blocking, milliseconds a process."""

    def machine(self) -> MemoryStatus: ...
    def process(self, pid: int) -> ProcessMemory: ...


class SystemProbe:
    """The machine's real figures."""

    def machine(self) -> MemoryStatus:
        from corral.model.memory import read_memory

        return read_memory()

    def process(self, pid: int) -> ProcessMemory:
        """Zeroes for a process that is gone."""
        import psutil

        try:
            info = psutil.Process(pid).memory_full_info()
        except psutil.Error:
            return ProcessMemory()
        shared = getattr(info, "shared", 0)  # Linux only
        return ProcessMemory(int(getattr(info, "pss", info.rss)), int(max(0, info.rss - shared)))


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes for all workers together.

    Args:
        target: what they take in the ordinary way.
        ceiling: the same without the reserve, for a model that could not be served otherwise.
        total: the machine's memory, or the limit that was set.
    """

    target: int
    ceiling: int
    total: int


def budget_of(machine: MemoryStatus, private_bytes: int, max_memory: int | None) -> Budget:
    """The budget by what the machine has free now.

    Args:
        private_bytes: what all workers together occupy and would give back.
        max_memory: the user's limit.
    """
    available = machine.free + private_bytes
    reserve = min(RESERVE_BYTES, int(machine.total * RESERVE_SHARE))
    limit = available if max_memory is None else max_memory
    return Budget(
        target=max(0, min(limit, available - reserve)),
        ceiling=min(limit, available),
        total=machine.total if max_memory is None else min(machine.total, max_memory),
    )
