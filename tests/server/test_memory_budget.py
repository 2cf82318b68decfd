from __future__ import annotations

import os

import pytest

from corral.model.memory import MemoryStatus
from corral.server.memory_budget import Budget, ProcessMemory, SystemProbe, budget_of

GIB = 1 << 30


def test_what_workers_would_give_back_counts() -> None:
    assert budget_of(MemoryStatus(100 * GIB, 10 * GIB), 20 * GIB, None) == Budget(29 * GIB, 30 * GIB, 100 * GIB)


def test_small_machines_have_a_small_reserve() -> None:
    assert budget_of(MemoryStatus(10 * GIB, 8 * GIB), 0, None) == Budget(8 * GIB - GIB // 2, 8 * GIB, 10 * GIB)


@pytest.mark.parametrize(("limit", "target", "ceiling"), [(20, 20, 20), (29, 29, 29), (30, 29, 30), (50, 29, 30)])
def test_a_limit_never_promises_what_is_not_there(limit: int, target: int, ceiling: int) -> None:
    budget = budget_of(MemoryStatus(100 * GIB, 30 * GIB), 0, limit * GIB)
    assert (budget.target, budget.ceiling, budget.total) == (target * GIB, ceiling * GIB, limit * GIB)


def test_a_machine_without_memory() -> None:
    assert budget_of(MemoryStatus(GIB, 0), 0, None).target == 0


def test_the_probe_sees_this_process_and_no_other() -> None:
    mine = SystemProbe().process(os.getpid())
    assert 0 < mine.resident < SystemProbe().machine().total
    assert mine.private > 0
    assert SystemProbe().process(2**22 + 1) == ProcessMemory()
