"""How fast weights are read: a measured figure, so only its bounds are known."""

from __future__ import annotations

import pytest

from corral.model.bandwidth import read_bandwidth


@pytest.mark.parametrize("sizes", [(64,), (3 << 20, 100, 7, 1 << 20), (9,)])
@pytest.mark.parametrize("num_threads", [1, 5])
def test_whatever_there_is_can_be_read(sizes: tuple[int, ...], num_threads: int) -> None:
    parts = [memoryview(bytes(size)) for size in sizes]
    assert 0 < read_bandwidth(parts, num_threads, seconds=0.001) < 1e15


@pytest.mark.parametrize("sizes", [(), (0,), (7, 3)])
def test_nothing_has_no_speed(sizes: tuple[int, ...]) -> None:
    assert read_bandwidth([memoryview(bytes(size)) for size in sizes], 2, seconds=0.001) == 0
