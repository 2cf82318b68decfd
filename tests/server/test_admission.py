from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from corral.server.admission import Decision, Resident, Waiting, decide, relieve
from corral.server.memory_budget import Budget

BUDGET = Budget(target=100, ceiling=110, total=200)

IDLE_OLD = Resident("old", 40, last_used=1.0, is_idle=True)
IDLE_NEW = Resident("new", 40, last_used=2.0, is_idle=True)
BUSY = Resident("busy", 40, last_used=3.0)


def want(key: str, num_bytes: int, *, least: int | None = None, starved: bool = False) -> Waiting[str]:
    return Waiting(key, num_bytes, num_bytes if least is None else least, starved)


def test_a_load_that_fits_starts_with_all_that_is_free() -> None:
    assert decide([BUSY], [want("a", 20)], BUDGET) == Decision(starts={"a": 60})


def test_loads_that_fit_together_start_together_and_share_the_rest() -> None:
    assert decide([], [want("a", 20), want("b", 40)], BUDGET) == Decision(starts={"a": 40, "b": 60})


def test_the_least_recently_asked_is_evicted_and_no_more_than_needed() -> None:
    assert decide([IDLE_NEW, IDLE_OLD], [want("a", 50)], BUDGET).evictions == {"old": "a"}
    assert decide([IDLE_NEW, IDLE_OLD], [want("a", 90)], BUDGET).evictions == {"old": "a", "new": "a"}


def test_nobody_is_evicted_in_vain() -> None:
    assert decide([IDLE_OLD, BUSY], [want("a", 80)], BUDGET) == Decision()


@pytest.mark.parametrize("kept", [{"is_pinned": True}, {"is_idle": False}])
def test_pinned_and_busy_models_are_not_evicted(kept: dict[str, Any]) -> None:
    residents = [replace(IDLE_OLD, **kept), IDLE_NEW]
    assert decide(residents, [want("a", 30)], BUDGET).evictions == {"new": "a"}


def test_kv_caches_go_before_models() -> None:
    residents = [replace(IDLE_OLD, releasable_bytes=10), replace(IDLE_NEW, releasable_bytes=15)]
    assert decide(residents, [want("a", 25)], BUDGET) == Decision(releases=["old"])
    assert decide(residents, [want("a", 35)], BUDGET) == Decision(releases=["old", "new"])
    assert decide(residents, [want("a", 50)], BUDGET) == Decision(evictions={"old": "a"})


def test_a_model_that_need_only_give_back_its_kv_cache_stays_when_another_one_goes() -> None:
    residents = [replace(IDLE_OLD, releasable_bytes=12), replace(IDLE_NEW, num_bytes=52, releasable_bytes=20)]
    assert decide(residents, [want("a", 50)], BUDGET) == Decision(evictions={"old": "a"}, releases=["new"])
    assert decide(residents, [want("a", 69)], BUDGET) == Decision(evictions={"old": "a", "new": "a"})
    # What is coming back is promised once.
    assert decide(residents, [want("a", 50), want("b", 19)], BUDGET).evictions == {"old": "a", "new": "b"}
    assert decide(residents, [want("a", 50), want("b", 18)], BUDGET).evictions == {"old": "a"}


def test_a_pinned_models_kv_cache_can_go() -> None:
    residents = [replace(IDLE_OLD, is_pinned=True, releasable_bytes=30)]
    assert decide(residents, [want("a", 80, least=80)], BUDGET).refused == {"a": 70}
    assert decide([*residents, BUSY], [want("a", 40)], BUDGET).releases == ["old"]


def test_a_kv_cache_that_is_coming_back_is_waited_for() -> None:
    releasing = replace(IDLE_OLD, returning_bytes=20)
    assert decide([releasing], [want("a", 75)], BUDGET) == Decision()
    # And it is not counted twice when its model has to go as well.
    assert decide([releasing, BUSY], [want("a", 70)], BUDGET) == Decision()
    assert decide([releasing, BUSY], [want("a", 60)], BUDGET).evictions == {"old": "a"}


def test_a_worker_that_stops_is_waited_for() -> None:
    stopping = replace(IDLE_OLD, is_stopping=True)
    assert decide([stopping, IDLE_NEW], [want("a", 60)], BUDGET) == Decision()


def test_what_is_coming_is_promised_once() -> None:
    stopping = replace(IDLE_OLD, is_stopping=True)
    # 20 are free, 40 coming: "a" is promised all of it, so for "b" another one goes, and "c" waits for memory too.
    decision = decide([stopping, IDLE_NEW], [want("a", 60), want("b", 40), want("c", 5)], BUDGET)
    assert decision == Decision(evictions={"new": "b"})


def test_a_small_load_passes_one_that_waits_for_a_worker_to_stop() -> None:
    stopping = replace(IDLE_OLD, is_stopping=True)
    decision = decide([stopping], [want("a", 70), want("b", 20)], BUDGET)
    assert decision.starts == {"b": 30}


def test_behind_busy_models_others_pass_at_first() -> None:
    assert decide([replace(BUSY, num_bytes=80)], [want("a", 50), want("b", 20)], BUDGET).starts == {"b": 20}


def test_a_starved_load_closes_the_busy_model_asked_longest_ago() -> None:
    later = Resident("later", 40, last_used=4.0)
    decision = decide([later, BUSY], [want("a", 50, starved=True)], BUDGET)
    assert decision == Decision(closed={"busy"})


def test_a_closed_model_stays_the_one_that_is_closed() -> None:
    closed = Resident("closed", 40, last_used=9.0, is_closed=True)
    assert decide([BUSY, closed], [want("a", 50, starved=True)], BUDGET).closed == {"closed"}


def test_nobody_takes_what_a_starved_load_waits_for() -> None:
    waiting = [want("a", 60, starved=True), want("b", 20)]
    # 20 are free and 40 will be: "a" needs all of it.
    assert decide([replace(BUSY, num_bytes=80)], waiting, BUDGET) == Decision(closed={"busy"}, starts={"b": 20})
    assert decide([BUSY, IDLE_OLD], [want("a", 100, starved=True), want("b", 20)], BUDGET) == Decision(closed={"busy"})


def test_idle_models_stay_until_the_busy_ones_that_are_needed_are_idle() -> None:
    waiting = [want("a", 100, starved=True)]
    assert decide([BUSY, IDLE_OLD], waiting, BUDGET).evictions == {}
    assert decide([replace(BUSY, is_idle=True), IDLE_OLD], waiting, BUDGET).evictions == {"old": "a", "busy": "a"}


def test_a_model_that_can_never_fit_is_refused_and_holds_nobody_up() -> None:
    decision = decide([IDLE_OLD], [want("a", 111, least=111), want("b", 10)], BUDGET)
    assert decision == Decision(refused={"a": 110}, starts={"b": 60})


def test_pinned_models_count_against_the_most_there_can_be() -> None:
    pinned = replace(BUSY, is_pinned=True)
    assert decide([pinned], [want("a", 71, least=71)], BUDGET).refused == {"a": 70}


def test_a_model_too_large_for_a_useful_context_gets_what_there_is_with_the_reserve() -> None:
    assert decide([], [want("a", 300, least=105)], BUDGET).starts == {"a": 110}
    assert decide([IDLE_OLD], [want("a", 300, least=105)], BUDGET).evictions == {"old": "a"}


def test_the_number_of_loaded_models_is_bounded() -> None:
    assert decide([IDLE_OLD, IDLE_NEW], [want("a", 1)], BUDGET, max_loaded=2).evictions == {"old": "a"}
    assert decide([BUSY], [want("a", 1)], BUDGET, max_loaded=1) == Decision()
    assert decide([BUSY], [want("a", 1, starved=True)], BUDGET, max_loaded=1).closed == {"busy"}
    stopping = replace(IDLE_OLD, is_stopping=True)
    assert decide([stopping], [want("a", 1), want("b", 1)], BUDGET, max_loaded=1) == Decision()
    pinned = replace(BUSY, is_pinned=True)
    assert list(decide([pinned], [want("a", 1)], BUDGET, max_loaded=1).refused) == ["a"]
    assert decide([], [want("a", 1), want("b", 1)], BUDGET, max_loaded=1).starts == {"a": 100}


def test_less_memory_than_is_taken_evicts_nobody_by_itself_here() -> None:
    assert decide([IDLE_OLD, BUSY], [], replace(BUDGET, target=0, ceiling=0)) == Decision()


def test_relief_takes_caches_first_then_idle_models_that_are_not_pinned() -> None:
    pinned = Resident("pinned", 40, releasable_bytes=5, last_used=0.0, is_idle=True, is_pinned=True)
    old = replace(IDLE_OLD, releasable_bytes=10)
    residents = [BUSY, IDLE_NEW, old, pinned]
    assert relieve(residents, 0) == Decision()
    assert relieve(residents, 4) == Decision(releases=["pinned"])
    assert relieve(residents, 15) == Decision(releases=["pinned", "old"])
    assert relieve(residents, 16) == Decision(releases=["pinned", "old"], evictions={"old": "old"})
    assert list(relieve(residents, 1000).evictions) == ["old", "new"]


def test_relief_waits_for_what_is_coming_already() -> None:
    stopping = replace(IDLE_OLD, is_stopping=True)
    assert relieve([stopping, IDLE_NEW], 40) == Decision()
    assert relieve([replace(IDLE_OLD, returning_bytes=10), IDLE_NEW], 10) == Decision()
