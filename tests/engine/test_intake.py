from __future__ import annotations

import pytest

from corral.config import EngineConfig
from corral.engine.intake import Intake, Lines
from corral.errors import QueueFull, TenantQueueFull, WaitTooLong
from corral.request import QueuePlace
from tests.support.fake_runner import FakeClock


def make_intake(clock: FakeClock | None = None, max_running: int = 2, **options: int) -> Intake:
    return Intake(max_running, EngineConfig(**options), clock or FakeClock())  # type: ignore[arg-type]


def test_a_key_has_its_share_of_the_queue_and_no_more() -> None:
    intake = make_intake(max_queue=10)
    for _ in range(7):
        intake.check_bounds("a")
        intake.take("a", 1)
    with pytest.raises(TenantQueueFull, match=r"7 sequences of this key run or wait; .* below 7"):
        intake.check_bounds("a")
    intake.check_bounds("b")
    intake.book_ends("a", 1)
    intake.check_bounds("a")


def test_without_keys_the_whole_queue_is_everybodys() -> None:
    intake = make_intake(max_queue=10, max_queue_per_key=1)
    intake.take("", 11)
    intake.check_bounds("")
    intake.take("", 1)
    with pytest.raises(QueueFull, match="12 sequences run or wait; new requests are taken below 12") as full:
        intake.check_bounds("")
    assert not isinstance(full.value, TenantQueueFull)


def test_a_key_hears_how_long_its_own_take() -> None:
    clock = FakeClock()
    intake = make_intake(clock, max_queue=100, max_queue_per_key=2)
    intake.take("a", 4)
    intake.take("b", 40)
    for _ in range(4):
        intake.book_ends("b", 1)
        clock.now_s += 1.0
    with pytest.raises(TenantQueueFull) as full:
        intake.check_bounds("a")
    assert full.value.retry_after_s == 10, "one of ten that end is its own, one ends in a second"


def test_places_go_by_the_turns_of_tenants() -> None:
    intake = make_intake()
    assert intake.place("a", 1.0) is None, "nobody waits"
    intake.end_step(Lines({"a": (50.0, 1.0, 100), "b": (50.0, 1.0, 3)}, num_starts=4, mean_cost=10.0))
    assert intake.place("a", 1.0) == QueuePlace(103)
    assert intake.place("b", 1.0) == QueuePlace(6)
    assert intake.place("c", 1.0) == QueuePlace(0)
    intake.queued("c")
    assert intake.place("c", 1.0) == QueuePlace(3)


def test_those_who_come_at_once_wait_beyond_the_free_places_only() -> None:
    intake = make_intake(max_running=2)
    places = []
    for _ in range(4):
        places.append(intake.place("", 1.0))
        intake.queued("")
    assert places == [None, None, QueuePlace(0), QueuePlace(1)]
    intake.begin_step()
    assert intake.place("", 1.0) == QueuePlace(2)
    intake.skip_step(2)
    assert intake.place("", 1.0) == QueuePlace(0)


def test_the_expected_wait_is_by_the_starts_of_late() -> None:
    clock = FakeClock()
    intake = make_intake(clock)
    intake.end_step(Lines({"": (0.0, 1.0, 9)}, num_starts=2))
    assert intake.place_at(3) == QueuePlace(3, None)
    for num_starts in (3, 3, 4):
        clock.now_s += 1.0
        intake.end_step(Lines({"": (0.0, 1.0, 9)}, num_starts=num_starts))
    assert intake.place_at(3) == QueuePlace(3, 6.0), "two have started in three seconds"
    clock.now_s += 3.0
    assert intake.place_at(3) == QueuePlace(3, 12.0), "a queue that stands still takes longer"
    intake.end_step(Lines({}, num_starts=13))
    assert intake.place_at(3) == QueuePlace(3, None), "what starts without a queue tells nothing"


@pytest.mark.parametrize(("expected_s", "is_refused"), [(None, False), (4.0, False), (7.0, True)])
def test_what_would_start_too_late_is_refused_at_once(expected_s: float | None, is_refused: bool) -> None:
    intake = make_intake()
    if not is_refused:
        intake.check_wait(QueuePlace(3, expected_s), 5.0)
        return
    with pytest.raises(WaitTooLong, match=r"about 7.0 s, and has 5.0 s") as refused:
        intake.check_wait(QueuePlace(3, expected_s), 5.0)
    assert refused.value.retry_after_s == 2
