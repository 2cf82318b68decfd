"""What a figure was measured on. Never the machine's name, a user's, or a folder."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

# What kernels for quantised weights are chosen by.
FLAGS = (
    *("avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


def machine_card(threads: int) -> dict[str, str]:
    """Name and value of everything about the machine that a figure depends on, in the order of the report."""
    memory = psutil.virtual_memory()
    return {
        "CPU": _cpu_model(),
        "CPUs usable": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} (threads asked for: {threads})",
        "CPU flags": " ".join(flag for flag in FLAGS if flag in _cpu_flags()) or "unknown",
        "caches": _caches(),
        "memory": f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB available",
        "swap used": f"{psutil.swap_memory().used / 2**30:.1f} GiB",
        "CPU quota": _quota(),
        "governor": _line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or "not told",
        "virtual machine": "yes" if "hypervisor" in _cpu_flags() else "no",
        "transparent huge pages": _chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "system": f"{_system()}, kernel {platform.release()}",
        "C library": " ".join(platform.libc_ver()).strip() or "unknown",
        "Python": platform.python_version(),
        "client": ", ".join(f"{name} {_version(name)}" for name in ("httpx", "numpy")),
        "load average at start": f"{os.getloadavg()[0]:.2f}",
    }


def _cpu_model() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> frozenset[str]:
    return frozenset((_cpu_info("flags") or _cpu_info("Features")).split())


def _cpu_info(key: str) -> str:
    """Of the first CPU."""
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _caches() -> str:
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if _line(folder / "type") != "Instruction":
            found.append(f"L{_line(folder / 'level')} {_line(folder / 'size')}")
    return ", ".join(found) or "unknown"


def _quota() -> str:
    """CPUs that a container may use, of cgroup v2."""
    most, _, period = _line(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    return f"{int(most) / int(period):g} CPUs" if most.isdecimal() and period.isdecimal() else "none"


def _chosen(path: Path) -> str:
    """The word in brackets."""
    words = _line(path).split()
    return next((word.strip("[]") for word in words if word.startswith("[")), "unknown")


def _system() -> str:
    for line in _lines(Path("/etc/os-release")):
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _line(path: Path) -> str:
    return next(iter(_lines(path)), "").strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
