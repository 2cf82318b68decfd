"""Who is suspected of ending workers, and who is cleared."""

from __future__ import annotations

import asyncio

import pytest

from corral.errors import PoisonousRequest
from corral.request import EmbedRequest, Request
from corral.sampling_params import SamplingParams
from corral.server.quarantine import LIVES, MAX_DEATHS, Patient, Quarantine
from corral.worker.death import Death, DeathKind
from corral.worker.step_record import Doing, key_of


def patient(name: str) -> Patient:
    return Patient(Request(name, prompt=f"what {name} asks"))


def death(kind: DeathKind, *patients: Patient) -> Death:
    return Death(kind, "its last words", Doing(frozenset(key_of(p.request.request_id) for p in patients), 1.0))


@pytest.mark.parametrize("kind", [DeathKind.FAULT, DeathKind.HUNG, DeathKind.OUT_OF_MEMORY])
async def test_the_second_death_of_one_alone_is_the_last(kind: DeathKind) -> None:
    quarantine, a = Quarantine(), patient("a")
    quarantine.died(a, death(kind, a))
    await quarantine.enter(a)
    with pytest.raises(PoisonousRequest, match=kind.value):
        quarantine.died(a, death(kind, a))


async def test_the_same_again_is_refused_and_nothing_else() -> None:
    quarantine = Quarantine()
    a = Patient(Request("a", prompt="deadly", sampling=SamplingParams(seed=1), at=1.0))
    quarantine.died(a, death(DeathKind.FAULT, a))
    with pytest.raises(PoisonousRequest):
        quarantine.died(a, death(DeathKind.FAULT, a))
    with pytest.raises(PoisonousRequest, match="the same request"):
        quarantine.check(Request("b", prompt="deadly", sampling=SamplingParams(seed=2), deadline=5.0))
    quarantine.check(Request("c", prompt="deadly", tenant="somebody else"))
    quarantine.check(Request("d", prompt="harmless"))
    quarantine.check(EmbedRequest("e", "model", ["deadly"]))


async def test_of_a_crowd_only_the_deadly_one_is_refused() -> None:
    quarantine = Quarantine()
    crowd = [patient(name) for name in "abcdef"]
    deadly = crowd[3]
    first, second = death(DeathKind.FAULT, *crowd), death(DeathKind.FAULT, *crowd)
    for one in crowd:
        quarantine.died(one, first)
    refused: list[Patient] = []
    in_worker: set[str] = set()

    async def go_on(one: Patient) -> None:
        await quarantine.enter(one)
        in_worker.add(one.request.request_id)
        if one is deadly:
            with pytest.raises(PoisonousRequest):
                quarantine.died(one, second)
            refused.append(one)
            for other in crowd:
                if other is not one and other.request.request_id in in_worker:
                    quarantine.died(other, second)
        quarantine.leave(one)

    async with asyncio.TaskGroup() as group:
        for one in crowd:
            group.create_task(go_on(one))
    assert refused == [deadly]
    assert [one.is_suspect for one in crowd] == [False] * 6


async def test_suspects_go_on_one_at_a_time_and_others_beside_them() -> None:
    quarantine = Quarantine()
    a, b, c = (patient(name) for name in "abc")
    for one in (a, b):
        quarantine.died(one, death(DeathKind.FAULT, a, b))
    await quarantine.enter(a)
    await quarantine.enter(c)
    waiting = asyncio.ensure_future(quarantine.enter(b))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    quarantine.leave(a)
    await waiting


async def test_a_turn_that_is_given_up_goes_to_the_next() -> None:
    quarantine = Quarantine()
    a, b = patient("a"), patient("b")
    for one in (a, b):
        quarantine.died(one, death(DeathKind.FAULT, a, b))
    await quarantine.enter(a)
    waiting = asyncio.ensure_future(quarantine.enter(b))
    await asyncio.sleep(0)
    waiting.cancel()
    quarantine.leave(b)
    await quarantine.enter(a)
    quarantine.leave(a)
    quarantine.leave(a)
    await quarantine.enter(b)


async def test_kills_from_outside_are_nobodys_fault_while_there_is_progress() -> None:
    quarantine, a = Quarantine(), patient("a")
    for _ in range(50):
        quarantine.died(a, death(DeathKind.KILLED, a))
        quarantine.leave(a)  # it has gained a token
    assert not a.is_suspect
    for _ in range(LIVES):
        assert not a.is_suspect
        quarantine.died(a, death(DeathKind.KILLED, a))
    assert a.is_suspect
    await quarantine.enter(a)
    with pytest.raises(PoisonousRequest):
        quarantine.died(a, death(DeathKind.KILLED, a))


async def test_who_was_not_there_is_not_suspected() -> None:
    quarantine = Quarantine()
    a, b = patient("a"), patient("b")
    for _ in range(20):
        quarantine.died(b, death(DeathKind.FAULT, a))
    assert not b.is_suspect


async def test_nobody_sees_deaths_without_end() -> None:
    quarantine = Quarantine()
    a, b = patient("a"), patient("b")
    for _ in range(MAX_DEATHS - 1):
        quarantine.died(a, death(DeathKind.FAULT, a, b))
        quarantine.leave(a)
    with pytest.raises(PoisonousRequest):
        quarantine.died(a, death(DeathKind.FAULT, a, b))
