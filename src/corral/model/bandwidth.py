"""How fast this machine reads a model's weights: the limit of every step that computes a few tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_SLICE_BYTES = 1 << 20  # one call of numpy: short enough to look at the clock in between
_SECONDS = 0.04


def read_bandwidth(parts: Sequence[memoryview], num_threads: int, seconds: float = _SECONDS) -> float:
    """Bytes a second that so many threads read of `parts`, one after the other, by numpy; 0 where there is nothing.

    A stand-in below what a tight native loop reads: a step may come to a little more than all of it.
    """
    slices = [
        np.frombuffer(part[start : start + _SLICE_BYTES], np.uint8)[: _SLICE_BYTES // 8 * 8]
        for part in parts
        for start in range(0, len(part), _SLICE_BYTES)
    ]
    words = [data[: len(data) // 8 * 8].view(np.uint64) for data in slices if len(data) >= 8]
    if not words:
        return 0.0

    def read(first: int) -> float:
        """Bytes a second of one thread, which reads every `num_threads`-th slice, round after round."""
        mine = words[first::num_threads] or words
        done, at, begun = 0, 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begun) < seconds:
            mine[at % len(mine)].max()
            done += mine[at % len(mine)].nbytes
            at += 1
        return done / elapsed

    with ThreadPoolExecutor(num_threads) as pool:
        return float(sum(pool.map(read, range(num_threads))))
