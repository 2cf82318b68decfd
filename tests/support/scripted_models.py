"""Models that scripted workers load: what the front process knows of them without a file, a machine or a clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from corral.config import BLOCK_SIZE, EngineConfig
from corral.errors import InvalidModelFile
from corral.model.memory import MemoryStatus
from corral.model.plan import POOL_SHARE, Plan
from corral.server.memory_budget import ProcessMemory
from corral.server.model_needs import Needs

MIB = 1 << 20
FIXED_BYTES = 100 * MIB
KV_BYTES_PER_TOKEN = 1024
CONTEXT = 4096


@dataclass(frozen=True)
class ScriptedNeeds:
    """A model of FIXED_BYTES and 4 MiB of KV cache a sequence; its memory can be had by the byte."""

    fixed_bytes: int = FIXED_BYTES

    def kv_bytes(self, context: int) -> int:
        return min(context, CONTEXT) * KV_BYTES_PER_TOKEN

    def least_bytes(self, context: int) -> int:
        return self.fixed_bytes + int(self.kv_bytes(context) / POOL_SHARE) + 1

    def plan(self, memory: MemoryStatus) -> Plan:
        left = memory.free - self.fixed_bytes
        num_blocks = max(0, int(left * POOL_SHARE)) // (BLOCK_SIZE * KV_BYTES_PER_TOKEN)
        return Plan(
            name="scripted",
            architecture="scripted",
            file_bytes=self.fixed_bytes,
            weights_bytes=self.fixed_bytes,
            work_bytes=0,
            kv_dtype="f16",
            kv_bytes_per_token=KV_BYTES_PER_TOKEN,
            num_blocks=num_blocks,
            max_model_len=CONTEXT,
            context_length=CONTEXT,
            max_num_seqs=8,
            memory=memory,
            fits=num_blocks > 0,
        )


def read_scripted_needs(path: Path, _: EngineConfig) -> Needs:
    """A file's stem may end in its size: "big-300.gguf" takes 300 MiB. "damaged.gguf" cannot be read."""
    if path.stem == "damaged":
        raise InvalidModelFile(path, 0, "not a GGUF file")
    size = path.stem.rpartition("-")[2]
    return ScriptedNeeds(int(size) * MIB if size.isdigit() else FIXED_BYTES)


@dataclass
class ScriptedProbe:
    """A machine with `free` bytes besides what workers take; workers take what the test says, by process id."""

    total: int = 64 << 30
    free: int = 64 << 30
    processes: dict[int, ProcessMemory] = field(default_factory=dict)

    def machine(self) -> MemoryStatus:
        return MemoryStatus(self.total, self.free)

    def process(self, pid: int) -> ProcessMemory:
        return self.processes.get(pid, ProcessMemory())


@dataclass
class _Timer:
    at: float
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock:
    """Stands still until `advance`."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._timers: list[_Timer] = []

    def time(self) -> float:
        return self._now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(self._now + delay_s, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Runs all timers that are due on the way, in order."""
        end = self._now + seconds
        while (
            timer := min((t for t in self._timers if not t.is_cancelled), key=lambda t: t.at, default=None)
        ) is not None:
            if timer.at > end or math.isinf(timer.at):
                break
            self._timers.remove(timer)
            self._now = max(self._now, timer.at)
            timer.callback()
        self._now = end
        self._timers = [t for t in self._timers if not t.is_cancelled]
