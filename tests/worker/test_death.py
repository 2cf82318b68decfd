from __future__ import annotations

import pytest

from corral.worker.death import DeathKind, count_oom_kills, kind_of_end


@pytest.mark.parametrize(
    ("returncode", "was_hung", "num_oom_kills", "kind"),
    [
        (-9, False, 0, DeathKind.KILLED),
        (-9, False, 1, DeathKind.OUT_OF_MEMORY),
        (-9, True, 0, DeathKind.HUNG),
        (-11, False, 0, DeathKind.FAULT),
        (-6, False, 3, DeathKind.FAULT),
        (4, False, 0, DeathKind.FAULT),
        (None, False, 0, DeathKind.FAULT),
    ],
)
def test_kinds(returncode: int | None, was_hung: bool, num_oom_kills: int, kind: DeathKind) -> None:
    assert kind_of_end(returncode, was_hung=was_hung, num_oom_kills=num_oom_kills) is kind


def test_kills_for_want_of_memory_never_become_fewer() -> None:
    before = count_oom_kills()
    assert 0 <= before <= count_oom_kills()
