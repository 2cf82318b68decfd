"""How much memory this process may have: the machine's, or its cgroup's where that is less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """Bytes: `free` counts what the system can reclaim at once, such as cached file pages."""

    total: int
    free: int


def read_memory(cgroup_root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS) -> MemoryStatus:
    """The tightest of the machine and the cgroups (v1 and v2) that this process is in."""
    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    for limit, used in _cgroup_limits(cgroup_root, own_cgroups):
        total = min(total, limit)
        free = min(free, max(0, limit - used))
    return MemoryStatus(total, free)


def _cgroup_limits(root: Path, own_cgroups: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use that cannot be reclaimed) of each cgroup from this process's up to the root."""
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:  # no cgroups: another system, or /proc is not mounted
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _walk(root, path, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _walk(root / "memory", path, names)


def _walk(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[tuple[int, int]]:
    limit_name, usage_name, reclaimable_name = names
    # A path that climbs is that of a process outside its namespace's root; what is above cannot be seen.
    folder = root if ".." in path.split("/") else root / path.lstrip("/")
    while True:
        limit, usage = _read_number(folder / limit_name), _read_number(folder / usage_name)
        if limit is not None and usage is not None:
            yield limit, max(0, usage - _read_stat(folder / "memory.stat", reclaimable_name))
        if folder == root or root not in folder.parents:
            return
        folder = folder.parent


def _read_number(path: Path) -> int | None:
    """The number in a control file; None without the file, or for "max"."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _read_stat(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name + " ")), 0)


def size_text(num_bytes: int) -> str:
    """A size for people: "1.2 GiB"."""
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
