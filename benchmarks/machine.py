"""What a figure was measured on: the machine card, and its read bandwidth and int8 peak at that moment."""

from __future__ import annotations

import concurrent.futures
import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from corral import _native

MAX_FOREIGN = 0.05  # share of all CPUs that others may take before a turn is worth nothing
BANDWIDTH_BYTES = 512 << 20  # beyond the share of a last-level cache that one guest usually gets
BANDWIDTH_SLICE = 1 << 20  # one numpy call: its temporaries stay in the first caches
_PEAKS_LINE = re.compile(r"threads=(?P<threads>\d+)\s+read\s+(?P<read>[\d.]+) GB/s\s+int8\s+(?P<int8>[\d.]+) GOPS")


@dataclass(frozen=True)
class Limits:
    """What the machine gave at one moment to so many threads: GB/s read from memory, and 1e9 int8 operations a second
    by vpdpbusd, None where unknown."""

    read_gbs: float
    int8_gops: float | None


def machine_card(num_threads: int) -> dict[str, str]:
    """Name and value of everything about the machine that a figure depends on."""
    info = _native.cpu_info()
    memory = psutil.virtual_memory()
    return {
        "CPU": _cpu_model(),
        "CPUs usable": f"{info['num_cpus']} (threads used: {num_threads})",
        "caches": _caches(),
        "memory": f"{memory.total / 1e9:.1f} GB",
        "ISA of Corral": f"{info['isa']} (of {', '.join(info['isas'])})",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python, numpy": f"{platform.python_version()}, {np.__version__}",
        "Corral commit": commit(),
        "load average at start": f"{os.getloadavg()[0]:.2f}",
    }


def machine_name() -> str:
    """A file name for the kind of machine: model and CPUs, never the host's name."""
    text = f"{_cpu_model()} {_native.cpu_info()['num_cpus']}cpu".lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text)).strip("-")


def commit() -> str:
    """Of Corral's sources; -dirty with changes that are not in it."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def package_versions(python: Path, *names: str) -> str:
    """Of distributions in the environment of another interpreter; "unknown" where it does not say."""
    code = "import sys; from importlib.metadata import version; print(*(f'{n} {version(n)}' for n in sys.argv[1:]))"
    try:
        done = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"unknown: {error.strerror}"
    return done.stdout.strip() or "unknown"


def read_bandwidth(num_threads: int, seconds: float = 0.5) -> float:
    """GB/s of reading memory in numpy on `num_threads` threads: a stand-in, below what a tight native loop reads."""
    arrays = [np.ones(BANDWIDTH_BYTES // num_threads // 8, np.uint64) for _ in range(num_threads)]
    step = BANDWIDTH_SLICE // 8

    def read(array: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> float:
        """Bytes per second of one thread."""
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            for first in range(0, len(array), step):
                array[first : first + step].max()
            done += array.nbytes
        return done / elapsed

    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        return sum(pool.map(read, arrays)) / 1e9


class ForeignLoad:
    """CPU time that other processes take while one's own children work.

    with ForeignLoad() as foreign:
        subprocess.run(...)
    foreign.share  # of all CPUs, over the whole block; children that have not ended yet count as others
    """

    share: float = 0.0

    def __enter__(self) -> Self:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        wall, busy, own = (after - before for before, after in zip(self._before, self._now(), strict=True))
        self.share = max(0.0, busy - own) / (wall * (psutil.cpu_count() or 1))

    def _now(self) -> tuple[float, float, float]:
        """Seconds: of the clock, of all CPUs busy or stolen, of this process and its children that have ended."""
        cpu = psutil.cpu_times()
        busy = cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq + cpu.steal
        return time.perf_counter(), busy, sum(os.times()[:4])


def limits(native_bench: Path | None, num_threads: int) -> Limits:
    """As `matmul_bench peaks` measures them now, in about two seconds; without it the read bandwidth of numpy alone.

    Raises:
        ValueError: the program printed no figures for that number of threads, or failed.
    """
    if native_bench is None:
        return Limits(read_bandwidth(num_threads), None)
    done = subprocess.run([str(native_bench), "peaks"], capture_output=True, text=True, check=False)
    return parse_peaks(done.stdout, num_threads)


def parse_peaks(text: str, num_threads: int) -> Limits:
    """The line for `num_threads` of what `matmul_bench peaks` prints. Raises ValueError if there is none."""
    for match in map(_PEAKS_LINE.search, text.splitlines()):
        if match and int(match["threads"]) == num_threads:
            return Limits(float(match["read"]), float(match["int8"]) or None)
    raise ValueError(f"matmul_bench peaks has no figures for {num_threads} threads; it printed {text[-200:]!r}")


def _cpu_model() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _caches() -> str:
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        values = {name: "".join(_lines(folder / name)) for name in ("level", "type", "size")}
        if values["type"] != "Instruction":
            found.append(f"L{values['level']} {values['size']}")
    return ", ".join(found) or "unknown"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
