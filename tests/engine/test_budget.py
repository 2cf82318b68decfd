from __future__ import annotations

import random
from itertools import pairwise

import pytest

from corral.engine.budget import FLOOR_TOKENS, StepBudget


class Machine:
    """A machine whose steps cost base + rows + tokens, with noise."""

    def __init__(self, base_ms: float, row_ms: float, token_ms: float, noise: float = 0.0) -> None:
        self.base_ms, self.row_ms, self.token_ms, self.noise = base_ms, row_ms, token_ms, noise
        self._rng = random.Random(1)

    def step_ms(self, num_prefill_tokens: int, num_decode_rows: int) -> float:
        exact = self.base_ms + self.row_ms * num_decode_rows + self.token_ms * num_prefill_tokens
        return exact * (1 + self.noise * self._rng.uniform(-1, 1))


def run(budget: StepBudget, machine: Machine, num_rows: int, num_steps: int) -> list[int]:
    """Steps with a prompt that never ends beside `num_rows` streams; the sizes of its chunks."""
    chunks = []
    for _ in range(num_steps):
        chunks.append(budget.prefill_tokens(num_rows))
        budget.observe(chunks[-1], num_rows, machine.step_ms(chunks[-1], num_rows))
    return chunks


def test_the_whole_step_is_for_prompts_while_nobody_streams() -> None:
    budget = StepBudget(512, 150)
    assert budget.prefill_tokens(0) == 512
    budget.observe(512, 0, 60_000)
    assert budget.prefill_tokens(0) == 512


def test_it_starts_small_beside_a_stream_as_long_as_nothing_is_known() -> None:
    assert StepBudget(512, 150).prefill_tokens(1) == FLOOR_TOKENS


def test_steps_settle_just_below_the_promise() -> None:
    machine = Machine(base_ms=20, row_ms=0.5, token_ms=1)
    budget = StepBudget(512, 150)
    for _ in range(5):
        budget.observe(0, 4, machine.step_ms(0, 4))
    chunk = run(budget, machine, 4, 30)[-1]
    assert 120 <= machine.step_ms(chunk, 4) <= 150


@pytest.mark.parametrize(("num_prompts", "most_ms"), [(0, 150), (1, 150), (2, 187.5), (5, 300), (9, 450), (1000, 450)])
def test_steps_grow_with_the_prompts_that_wait(num_prompts: int, most_ms: float) -> None:
    machine = Machine(base_ms=20, row_ms=0.5, token_ms=1)
    budget = StepBudget(512, 150)
    for _ in range(5):
        budget.observe(0, 4, machine.step_ms(0, 4))
    for _ in range(30):
        chunk = budget.prefill_tokens(4, num_prompts)
        budget.observe(chunk, 4, machine.step_ms(chunk, 4))
    assert 0.8 * most_ms <= machine.step_ms(chunk, 4) <= most_ms


def test_noise_and_outliers_do_not_break_the_promise() -> None:
    machine = Machine(base_ms=20, row_ms=0.5, token_ms=1, noise=0.05)
    budget = StepBudget(512, 150)
    for _ in range(5):
        budget.observe(0, 4, machine.step_ms(0, 4))
    run(budget, machine, 4, 20)
    settled = budget.prefill_tokens(4)
    budget.observe(settled, 4, 5000)  # another process had the CPU
    chunks = run(budget, machine, 4, 20)
    assert min(chunks) > settled / 2
    assert max(20 + 2 + chunk for chunk in chunks) <= 165


def test_it_follows_a_machine_that_slows_down_and_recovers() -> None:
    budget = StepBudget(512, 150)
    fast, slow = Machine(10, 1, 0.5), Machine(10, 1, 4)
    run(budget, fast, 1, 20)
    wide = budget.prefill_tokens(1)
    assert run(budget, slow, 1, 10)[-1] < wide / 4
    assert run(budget, fast, 1, 30)[-1] > wide * 0.9


def test_prompts_always_proceed() -> None:
    budget = StepBudget(512, 1)
    chunks = run(budget, Machine(500, 10, 50), 8, 20)
    assert set(chunks) == {FLOOR_TOKENS}


def test_decode_rows_alone_may_fill_the_budget() -> None:
    assert StepBudget(8, 150).prefill_tokens(8) == 1
    assert StepBudget(8, 150).prefill_tokens(5) == 3


def test_a_chunk_grows_at_most_twofold_a_step() -> None:
    budget = StepBudget(4096, 150)
    chunks = run(budget, Machine(1, 0, 0), 1, 12)
    assert all(after <= 2 * before for before, after in pairwise(chunks))
    assert chunks[-1] == 4095


@pytest.mark.parametrize("num_tokens", [1, FLOOR_TOKENS - 1])
def test_tiny_chunks_teach_nothing(num_tokens: int) -> None:
    budget = StepBudget(512, 150)
    budget.observe(64, 1, 64)
    before = budget.prefill_tokens(1)
    for _ in range(10):
        budget.observe(num_tokens, 1, 1000)
    assert budget.prefill_tokens(1) == before


def test_unmeasured_numbers_of_rows_are_judged_by_the_nearest() -> None:
    budget = StepBudget(512, 150)
    budget.observe(0, 4, 40)
    assert budget.decode_ms(1) == 40
    assert budget.decode_ms(8) == 80
    budget.observe(0, 8, 50)
    assert budget.decode_ms(8) == 50
