"""Tenants that share an engine: who waits for whom, counted in steps and tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from corral.engine.core import EngineCore
from corral.engine.sequence import SequenceGroupSpec
from corral.request import AnswerSoFar
from corral.sampling_params import SamplingParams
from tests.support.fake_runner import FakeRunner, expect, make_core


def make_spec(
    request_id: str, prompt_len: int = 20, *, tenant: str = "", weight: float = 1.0, priority: int = 0, **params: Any
) -> SequenceGroupSpec:
    first = hash_of(request_id)
    prompt = [(first + i) % 50 for i in range(prompt_len)]
    sampling = SamplingParams(**({"temperature": 0.0, "max_tokens": 16} | params))
    return SequenceGroupSpec(request_id, prompt, sampling, tenant=tenant, weight=weight, priority=priority)


def hash_of(name: str) -> int:
    return sum(map(ord, name)) % 50


def steps_until_first_token(core: EngineCore, request_id: str) -> int:
    num_steps = 0
    while True:
        num_steps += 1
        outputs = core.step().outputs
        core.check_integrity()
        if any(output.request_id == request_id for output in outputs):
            return num_steps


def served(core: EngineCore, num_steps: int) -> Counter[str]:
    """Tokens by the first letter of their request."""
    tokens: Counter[str] = Counter()
    for _ in range(num_steps):
        for output in core.step().outputs:
            tokens[output.request_id[0]] += len(output.new_token_ids)
        core.check_integrity()
    return tokens


def drain(core: EngineCore) -> dict[tuple[str, int], list[int]]:
    answers: dict[tuple[str, int], list[int]] = {}
    while core.has_work:
        for output in core.step().outputs:
            answers.setdefault((output.request_id, output.index), []).extend(output.new_token_ids)
        core.check_integrity()
    core.check_idle()
    return answers


@pytest.mark.parametrize("num_steps_before", [0, 1, 25])
@pytest.mark.parametrize("max_num_seqs", [2, 8])
def test_two_hundred_requests_of_one_do_not_hold_up_the_one_of_another(
    max_num_seqs: int, num_steps_before: int
) -> None:
    alone = make_core(FakeRunner(), max_num_seqs=max_num_seqs)
    alone.add(make_spec("b", tenant="b"))
    steps_alone = steps_until_first_token(alone, "b")

    core = make_core(FakeRunner(), max_num_seqs=max_num_seqs)
    specs = [make_spec(f"a{i}", tenant="a") for i in range(200)]
    for spec in specs:
        core.add(spec)
    for _ in range(num_steps_before):
        core.step()
    core.add(make_spec("b", tenant="b"))
    assert steps_until_first_token(core, "b") <= 2 * steps_alone
    steps_to_end = 1
    while not any(o.request_id == "b" and o.finish_reason for o in core.step().outputs):
        steps_to_end += 1
    assert steps_to_end <= 2 * 16, "it keeps its place until it ends"
    drain(core)


def test_what_is_preempted_for_another_tenant_answers_as_if_it_had_not_been() -> None:
    core = make_core(FakeRunner(), max_num_seqs=2)
    specs = [make_spec(f"a{i}", tenant="a", max_tokens=30) for i in range(4)]
    for spec in specs:
        core.add(spec)
    answers: dict[str, list[int]] = {}
    for step in range(10_000):
        if step == 5:
            specs.append(make_spec("b", tenant="b", max_tokens=30))
            core.add(specs[-1])
        if not core.has_work:
            break
        for output in core.step().outputs:
            answers.setdefault(output.request_id, []).extend(output.new_token_ids)
        core.check_integrity()
    assert core.stats().preemptions > 0
    for spec in specs:
        assert tuple(answers[spec.request_id]) == expect(spec, 0).token_ids


@pytest.mark.parametrize(("weight", "low", "high"), [(1.0, 0.85, 1.15), (2.0, 1.7, 2.3), (4.0, 3.3, 4.7)])
def test_service_is_in_proportion_to_weights(weight: float, low: float, high: float) -> None:
    core = make_core(FakeRunner(), max_num_seqs=4)
    for i in range(300):
        core.add(make_spec(f"a{i}", tenant="a", weight=weight, max_tokens=8))
        core.add(make_spec(f"b{i}", tenant="b", max_tokens=8))
    tokens = served(core, 500)
    assert low <= tokens["a"] / tokens["b"] <= high


def test_short_prompts_do_not_wait_for_the_long_ones_of_another() -> None:
    core = make_core(FakeRunner(num_blocks=400), max_model_len=2048, max_num_batched_tokens=16)
    for i in range(3):
        core.add(make_spec(f"a{i}", 1600, tenant="a", max_tokens=4))
    core.step()
    core.add(make_spec("b", 16, tenant="b", max_tokens=4))
    assert steps_until_first_token(core, "b") <= 2
    drain(core)


def test_a_tenant_that_returns_has_saved_up_nothing() -> None:
    core = make_core(FakeRunner(), max_num_seqs=2)
    core.add(make_spec("b", tenant="b", max_tokens=1))
    for i in range(100):
        core.add(make_spec(f"a{i}", tenant="a", max_tokens=8))
    served(core, 200)
    for i in range(100):
        core.add(make_spec(f"b{i}", tenant="b", max_tokens=8))
    tokens = served(core, 100)
    assert 0.8 <= tokens["a"] / tokens["b"] <= 1.25


def test_cached_prompts_and_what_is_computed_again_cost_nothing() -> None:
    core = make_core(FakeRunner(), max_num_seqs=2)
    core.add(make_spec("x", tenant="x", max_tokens=90))  # keeps the others' counters
    core.add(make_spec("a", 64, tenant="a", max_tokens=1))
    core.step()
    core.step()
    accounts = core._scheduler.tenants
    core.add(make_spec("a", 64, tenant="a", max_tokens=2))
    before = accounts.open["a"].counter
    assert before == 64 + 2
    core.step()
    assert accounts.open["a"].counter == before + 16 + 2, "the last block is computed, and a token generated"


def test_one_tenant_is_served_as_everybody_was() -> None:
    orders = []
    for tenant in ("", "a"):
        runner = FakeRunner(num_blocks=20)
        starts: dict[int, None] = {}
        runner.on_execute = lambda batch, starts=starts: starts.update(
            {row.sequence.seq_id: None for row in batch.rows if row.start == 0}
        )
        core = make_core(runner, max_num_batched_tokens=24)
        for i in range(12):
            core.add(make_spec(f"r{i}", 10 + 7 * i, tenant=tenant, weight=3.0, max_tokens=30))
        drain(core)
        orders.append(list(starts))
    assert orders == [list(range(12))] * 2


def test_lower_priorities_start_first_within_a_tenant_only() -> None:
    core = make_core(FakeRunner(), max_num_seqs=1)
    core.add(make_spec("first", tenant="a"))
    core.step()
    for name, priority in (("late", 5), ("normal", 0), ("urgent", -1), ("also", 0)):
        core.add(make_spec(name, tenant="a", priority=priority))
    assert [name for name, _ in drain(core)] == ["first", "urgent", "normal", "also", "late"]


def test_more_tenants_than_places_take_turns() -> None:
    core = make_core(FakeRunner(), max_num_seqs=2)
    for i in range(5):
        for tenant in "abcde":
            core.add(make_spec(f"{tenant}{i}", tenant=tenant, max_tokens=4))
    started: Counter[str] = Counter(dict.fromkeys("abcde", 0))
    for name, _ in drain(core):
        started[name[0]] += 1
        assert max(started.values()) - min(started.values()) <= 2


@pytest.mark.parametrize("num_blocks", [8, 9, 12])
def test_memory_is_shared_as_places_are(num_blocks: int) -> None:
    core = make_core(FakeRunner(num_blocks), max_num_seqs=8)
    specs = [make_spec(f"a{i}", 30, tenant="a", max_tokens=60) for i in range(12)]
    for spec in specs:
        core.add(spec)
    for _ in range(10):
        core.step()
    core.add(make_spec("b", 30, tenant="b", max_tokens=60))
    ends: list[str] = []
    while core.has_work:
        ends += [o.request_id for o in core.step().outputs if o.finish_reason]
        core.check_integrity()
    assert ends.index("b") <= 2
    core.check_idle()


@pytest.mark.parametrize("num_blocks", [12, 64])
def test_answers_that_go_on_from_another_engine_share_this_one(num_blocks: int) -> None:
    core = make_core(FakeRunner(num_blocks), max_num_batched_tokens=16)
    spec = make_spec("a", 24, tenant="a", n=3, temperature=1.0, seed=4, max_tokens=50)
    known = tuple(AnswerSoFar(expect(spec, index).token_ids[: 20 + index]) for index in range(3))
    others = [make_spec(f"b{i}", 30, tenant="b", max_tokens=40) for i in range(3)]
    for each in (others[0], replace(spec, resumed=known), *others[1:]):
        core.add(each)
    answers = drain(core)
    for index in range(3):
        assert (*known[index].token_ids, *answers["a", index]) == expect(spec, index).token_ids
    for other in others:
        assert tuple(answers[other.request_id, 0]) == expect(other, 0).token_ids
