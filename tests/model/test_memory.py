"""Memory of the machine and of cgroups, on folders that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from corral.model.memory import MemoryStatus, read_memory

GIB = 1 << 30


@pytest.fixture(autouse=True)
def machine_of_8_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine:
        total = 8 * GIB
        available = 6 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Machine)


def cgroup(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def own(folder: Path, text: str) -> Path:
    path = folder / "own"
    path.write_text(text)
    return path


def test_without_cgroups_the_machine_counts(tmp_path: Path) -> None:
    assert read_memory(tmp_path, tmp_path / "absent") == MemoryStatus(8 * GIB, 6 * GIB)


def test_cgroup_v2_limits_of_all_levels_count(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    cgroup(root / "user", {"memory.max": str(4 * GIB), "memory.current": str(3 * GIB),
                           "memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file 7"})  # fmt: skip
    cgroup(root / "user" / "job", {"memory.max": "max", "memory.current": str(GIB)})
    assert read_memory(root, own(tmp_path, "0::/user/job\n")) == MemoryStatus(4 * GIB, 2 * GIB)
    cgroup(root / "user" / "job", {"memory.max": str(2 * GIB), "memory.current": str(GIB)})
    assert read_memory(root, own(tmp_path, "0::/user/job\n")) == MemoryStatus(2 * GIB, GIB)


def test_a_container_sees_its_limit_at_the_root(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    cgroup(root, {"memory.max": str(GIB), "memory.current": str(2 * GIB)})
    assert read_memory(root, own(tmp_path, "0::/docker/abc\n")) == MemoryStatus(GIB, 0)


def test_cgroup_v1_and_its_no_limit(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    files = {"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": str(GIB)}
    cgroup(root / "memory" / "job", files)
    lines = "4:cpu,cpuacct:/job\n3:memory:/job\n0::/\n"
    assert read_memory(root, own(tmp_path, lines)) == MemoryStatus(8 * GIB, 6 * GIB)
    cgroup(root / "memory" / "job", {"memory.limit_in_bytes": str(3 * GIB), "memory.stat": "total_inactive_file 0"})
    assert read_memory(root, own(tmp_path, lines)) == MemoryStatus(3 * GIB, 2 * GIB)


def test_a_path_that_climbs_out_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    cgroup(tmp_path / "outside", {"memory.max": "1", "memory.current": "0"})
    root.mkdir()
    assert read_memory(root, own(tmp_path, "0::/../outside\n")) == MemoryStatus(8 * GIB, 6 * GIB)
