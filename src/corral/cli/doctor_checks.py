"""The checks of `corral doctor`: each looks at one thing and says what it found in words that help."""

from __future__ import annotations

import enum
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from corral.cli.address import NotConnected, ServerAddress, is_corral, server_address
from corral.config import cache_home, data_home, forced_isa, has_https_proxy
from corral.errors import InvalidConfig
from corral.model.cpu import active_isa, available_isas, usable_cpus
from corral.model.memory import read_memory, size_text
from corral.store.catalog import CATALOG

BUSY_SHARE = 0.5  # of the CPUs, by the load average
MIN_FREE_MEMORY = 1 << 30
MIN_FREE_DISK = 5 << 30
MIN_OPEN_FILES = 1024
PROBE_BYTES_PER_THREAD = 128 << 20
PROBE_PASSES = 3
CONNECT_TIMEOUT_S = 3.0
MEMORY_SHARE = 0.8  # of what is free that a model's file may take: KV cache and work come on top

_ISA_MEANING = {
    "amx": "the fastest there is: tile multiplication",
    "avx512": "fast: 512-bit integer dot products",
    "avx2_vnni": "good: 256-bit integer dot products",
    "neon": "good: 128-bit integer dot products",
    "avx2": "good",
    "scalar": "slow: portable code, about a tenth of the speed",
}


class Level(enum.StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing
    WARN = "warn"  # works, but worse than it could
    FAIL = "fail"  # keeps Corral from working


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found, and what to do about it, if anything."""

    subject: str
    level: Level
    text: str
    advice: str = ""


def run_checks(*, is_online: bool) -> list[Finding]:
    """All checks, in reading order."""
    checks: list[Callable[[], Finding]] = [
        check_isa,
        check_cpus,
        check_governor,
        check_load,
        check_memory,
        check_memory_speed,
        check_swap,
        lambda: check_disk("models", data_home()),
        lambda: check_disk("cache", cache_home()),
        check_open_files,
        check_server,
    ]
    if is_online:
        checks.append(check_hub)
    return [check() for check in checks]


def check_isa(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Which kernels run here."""
    isa, isas = active_isa(), available_isas()
    if (forced := forced_isa()) is not None:
        isa = forced
    text = f"{_cpu_name(cpuinfo)}, instruction set {isa}: {_ISA_MEANING.get(isa, 'known')}"
    if forced is not None and forced != isas[-1]:
        advice = f"CORRAL_ISA asks for {forced}; without it {isas[-1]} is taken"
        return Finding("processor", Level.WARN, text, advice)
    if isa == "scalar":
        advice = "on a virtual machine, let it see the host's processor (CPU type 'host'): AVX2 is what is missing"
        return Finding("processor", Level.WARN, text, advice)
    return Finding("processor", Level.OK, text)


def _cpu_name(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, "") or "unknown processor"


def check_cpus(machine_cpus: int | None = None) -> Finding:
    """How many CPUs this process may use, of those the machine has."""
    usable, machine = usable_cpus(), machine_cpus or os.cpu_count() or 1
    if usable < machine:
        advice = (
            f"raise the container's CPU limit or the affinity mask (taskset) to use all {machine}; "
            "speed with many users grows with them"
        )
        return Finding("CPUs", Level.NOTE, f"{usable} of the machine's {machine} may be used", advice)
    return Finding("CPUs", Level.OK, f"all {machine} may be used")


def check_governor(cpufreq: Path = Path("/sys/devices/system/cpu/cpu0/cpufreq")) -> Finding:
    """Whether the system holds the clock down."""
    governor, driver = _read(cpufreq / "scaling_governor"), _read(cpufreq / "scaling_driver")
    # intel_pstate and amd_pstate in active mode raise the clock under load, whatever the governor is called.
    if governor in ("powersave", "conservative") and "pstate" not in driver:
        advice = "sudo cpupower frequency-set -g performance"
        return Finding("clock", Level.WARN, f"the governor {governor!r} holds the clock down", advice)
    return Finding("clock", Level.OK, f"governor {governor!r}" if governor else "not governed here")


def check_load(load: float | None = None) -> Finding:
    """Whether other programs take the CPUs: a decoder with one slow thread is a slow decoder."""
    load = os.getloadavg()[0] if load is None else load
    text = f"{load:.1f} programs ran on average in the last minute"
    if load > BUSY_SHARE * usable_cpus():
        return Finding("load", Level.WARN, text, "stop what else computes, or give Corral fewer --threads than CPUs")
    return Finding("load", Level.OK, text)


def check_memory(free: int | None = None, total: int | None = None) -> Finding:
    """What is free, and the largest model of the catalog that it holds."""
    status = read_memory()
    free, total = status.free if free is None else free, status.total if total is None else total
    text = f"{size_text(free)} free of {size_text(total)}"
    if free < MIN_FREE_MEMORY:
        advice = "stop other programs or raise the container's memory limit; the smallest models need about 1 GiB"
        return Finding("memory", Level.FAIL if free < MIN_FREE_MEMORY // 4 else Level.WARN, text, advice)
    fitting = [entry for entry in CATALOG if entry.artifact.size_bytes < MEMORY_SHARE * free]
    largest = max(fitting, key=lambda entry: entry.artifact.size_bytes, default=None)
    holds = f"; holds models up to {largest.names[-1]} ({size_text(largest.artifact.size_bytes)})" if largest else ""
    return Finding("memory", Level.OK, text + holds)


def check_memory_speed(num_bytes: int = PROBE_BYTES_PER_THREAD) -> Finding:
    """How fast weights can be read: it bounds the tokens a second of one user."""
    speed = measure_read_speed(min(num_bytes, read_memory().free // (4 * usable_cpus())))
    text = (
        f"about {speed / 1e9:.0f} GB/s read: at most {speed / 1e9:.0f} tokens/s for one user of a 1 GB model, "
        f"{speed / 5e9:.0f} of a 5 GB one; many users share each read"
    )
    return Finding("memory speed", Level.OK, text)


def measure_read_speed(bytes_per_thread: int) -> float:
    """Bytes per second that all usable CPUs read together; the best of a few passes."""
    import numpy as np

    num_threads = usable_cpus()
    parts = [np.ones(max(1, bytes_per_thread // 8), np.float64) for _ in range(num_threads)]
    best = 0.0
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in range(PROBE_PASSES):
            started = time.perf_counter()
            list(pool.map(np.max, parts))  # numpy lets go of the GIL, and reads with vector instructions
            best = max(best, sum(part.nbytes for part in parts) / (time.perf_counter() - started))
    return best


def check_swap() -> Finding:
    """Weights that are swapped out make every token wait for the disk."""
    swap = psutil.swap_memory()
    if swap.total and swap.percent > 50:
        text = f"{size_text(swap.used)} of {size_text(swap.total)} in use: the machine has been short of memory"
        return Finding("swap", Level.WARN, text, "stop other programs, or take smaller models")
    return Finding("swap", Level.OK, f"{size_text(swap.used)} in use" if swap.total else "none")


def check_disk(subject: str, folder: Path) -> Finding:
    """Room for models, and for their packed weights."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    text = f"{folder}: {size_text(free)} free"
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        advice = f"make {existing} a folder you can write to, or set CORRAL_HOME and CORRAL_CACHE to folders of yours"
        return Finding(
            subject, Level.FAIL if subject == "models" else Level.WARN, f"{text}, but it cannot be written to", advice
        )
    if free < MIN_FREE_DISK:
        advice = "make room (`corral rm`, `corral cache clear`), or set CORRAL_HOME and CORRAL_CACHE to another disk"
        return Finding(subject, Level.WARN, text, advice)
    return Finding(subject, Level.OK, text)


def check_open_files() -> Finding:
    """Each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} may be open at once"
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        return Finding("files", Level.WARN, text, f"ulimit -n {hard} before `corral serve`: each client takes one")
    return Finding("files", Level.OK, text)


def check_server(address: ServerAddress | None = None) -> Finding:
    """Who answers where the verbs ask for a server, and `corral serve` would listen."""
    try:
        address = address or server_address()
    except InvalidConfig as error:
        return Finding("server", Level.FAIL, str(error), "correct it, or unset it to use this machine")
    try:
        if is_corral(address):
            return Finding("server", Level.OK, f"a Corral server answers at {address}")
    except NotConnected:
        if address.is_given and not address.is_here:
            advice = "start it there, or unset CORRAL_HOST and OLLAMA_HOST to use this machine"
            return Finding("server", Level.WARN, f"none answers at {address}", advice)
        return Finding("server", Level.OK, f"none runs at {address}; `corral serve` would take it")
    advice = "stop it, or give `corral serve` another --port"
    return Finding("server", Level.NOTE, f"another program, such as Ollama, answers at {address}", advice)


def check_hub(endpoint: str | None = None) -> Finding:
    """Whether models can be downloaded."""
    from huggingface_hub import constants

    url = urlsplit(endpoint or constants.ENDPOINT)
    if url.scheme == "https" and has_https_proxy():
        return Finding("hub", Level.OK, f"{url.hostname}, through the proxy that the environment names")
    try:
        address = (url.hostname or "", url.port or (80 if url.scheme == "http" else 443))
        socket.create_connection(address, timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        advice = (
            "set HTTPS_PROXY or HF_ENDPOINT (a mirror); smollm2 also comes from the package index, "
            "and .gguf files are used where they lie"
        )
        return Finding("hub", Level.WARN, f"{url.hostname} cannot be reached: {error.strerror or error}", advice)
    return Finding("hub", Level.OK, f"{url.hostname} can be reached")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
