from __future__ import annotations

import itertools

from corral.engine.fair_queue import projected_turns
from corral.engine.ledger import Account, Ledger


def test_a_newcomer_starts_at_the_least_counter() -> None:
    ledger = Ledger(Account)
    for name, cost in (("a", 10.0), ("b", 30.0)):
        ledger.enter(name, 1.0).charge(cost)
    assert ledger.enter("c", 1.0).counter == 0.0 + 10.0


def test_who_is_ahead_stays_ahead_over_a_pause() -> None:
    ledger = Ledger(Account)
    a, b = ledger.enter("a", 1.0), ledger.enter("b", 2.0)
    a.charge(50.0)
    b.charge(20.0)
    ledger.leave(a)
    assert ledger.enter("a", 1.0).counter == 50.0
    assert b.counter == 10.0


def test_when_all_have_left_all_start_anew() -> None:
    ledger = Ledger(Account)
    for name in "ab":
        ledger.enter(name, 1.0).charge(50.0)
    for name in "ab":
        ledger.leave(ledger.open[name])
    assert ledger.enter("b", 1.0).counter == 0.0


def test_those_who_have_left_are_forgotten_when_others_have_caught_up() -> None:
    ledger = Ledger(Account)
    stayer = ledger.enter("stayer", 1.0)
    for i in range(10_000):
        stayer.charge(1.0)
        passer = ledger.enter(f"passer {i}", 1.0)
        passer.charge(5.0)
        ledger.leave(passer)
        assert len(ledger._left) <= 64


def test_projected_turns_go_by_counters_and_weights() -> None:
    lines = [(0.0, 1.0, 3), (0.0, 2.0, 6), (100.0, 1.0, 2)]
    turns = list(projected_turns(lines, 10.0))
    assert sorted(turns) == [0] * 3 + [1] * 6 + [2] * 2
    assert turns[-2:] == [2, 2]
    assert [len(list(same)) for at, same in itertools.groupby(turns) if at == 1] == [2, 2, 2]
