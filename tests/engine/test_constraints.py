"""Masks, allowed ids and bad words, over the native core."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from corral._native import Model
from corral.engine.constraint import Mask
from corral.engine.sequence import SequenceGroupSpec
from corral.errors import CorralError, InvalidRequest
from corral.request import FinishReason
from corral.sampling_params import SamplingParams
from tests.support.tiny_engine import VOCAB_SIZE, make_core, make_model, run

END = 95


class Alternating:
    """Even ids and odd ids take turns; after `length` of them nothing but the end is allowed."""

    def __init__(self, length: int = 12, *, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.length = length
        self.num_accepted = 0
        self._fails_at = fails_at
        self._error = error

    def fill_mask(self, mask: Mask) -> bool:
        if self._error is not None and self.num_accepted == self._fails_at:
            raise self._error
        is_over = self.num_accepted >= self.length
        wanted = [END] if is_over else range(self.num_accepted % 2, END, 2)
        mask[:] = 0
        for token_id in wanted:
            mask[token_id // 32] |= np.uint32(1 << (token_id % 32))
        return True

    def accept(self, token_id: int) -> None:
        allowed = token_id == END if self.num_accepted >= self.length else token_id % 2 == self.num_accepted % 2
        assert allowed, f"token {token_id} at {self.num_accepted}"
        self.num_accepted += 1

    def copy(self) -> Alternating:
        twin = Alternating(self.length, fails_at=self._fails_at, error=self._error)
        twin.num_accepted = self.num_accepted
        return twin


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model()


def spec(name: str, prompt: list[int], constraint: Alternating | None = None, **params: Any) -> SequenceGroupSpec:
    sampling = SamplingParams(**({"temperature": 0.0, "max_tokens": 40} | params))
    return SequenceGroupSpec(name, prompt, sampling, frozenset({END}), constraint=constraint)


def constrained_specs() -> list[SequenceGroupSpec]:
    stem = list(range(3, 50))
    return [
        spec("greedy", stem, Alternating()),
        spec("seeded", [*stem, 1], Alternating(20), temperature=1.0, seed=3, n=3),
        spec("free", [*stem, 2], None, max_tokens=20),
        spec("penalised", [5], Alternating(15), repetition_penalty=1.3, temperature=0.7, seed=1),
    ]


@pytest.fixture(scope="module")
def alone(model: Model) -> dict[tuple[str, int], tuple[int, ...]]:
    answers = {}
    for each in constrained_specs():
        core = make_core(model, max_num_batched_tokens=256, max_num_seqs=1, enable_prefix_caching=False)
        answers.update(run(core, [each]))
    return answers


def test_each_answer_is_what_its_constraint_wants(alone: dict[tuple[str, int], tuple[int, ...]]) -> None:
    lengths = {"greedy": 12, "seeded": 20, "penalised": 15}
    for (name, _), ids in alone.items():
        if name == "free":
            continue
        assert len(ids) == lengths[name]
        assert [token_id % 2 for token_id in ids] == [i % 2 for i in range(len(ids))]
    assert any(a % 2 == b % 2 for a, b in itertools.pairwise(alone["free", 0]))
    assert len({alone["seeded", i] for i in range(3)}) == 3


@pytest.mark.parametrize("options", [{}, {"num_blocks": 16}, {"max_num_batched_tokens": 7}], ids=str)
def test_company_preemption_and_chunking_change_no_constrained_answer(
    model: Model, alone: dict[tuple[str, int], tuple[int, ...]], options: dict[str, int]
) -> None:
    assert run(make_core(model, **options), constrained_specs()) == alone


@pytest.mark.parametrize("params", [{"min_tokens": 30}, {"ignore_eos": True}], ids=str)
def test_what_is_complete_ends_whatever_else_was_asked(model: Model, params: dict[str, Any]) -> None:
    core = make_core(model)
    core.add(spec("r", [1, 2], Alternating(4), **params))
    outputs = [output for _ in range(5) for output in core.step().outputs]
    assert not core.has_work
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert outputs[-1].stop_token == END


@pytest.mark.parametrize(
    ("error", "words"),
    [(InvalidRequest("too complex"), "too complex"), (ValueError("secret"), "the grammar failed")],
    ids=["typed", "untyped"],
)
def test_a_constraint_that_fails_costs_its_own_request(model: Model, error: Exception, words: str) -> None:
    core = make_core(model)
    core.add(spec("bad", [1, 2], Alternating(fails_at=3, error=error)))
    core.add(spec("good", [1, 2], Alternating(8)))
    failures: dict[str, CorralError] = {}
    ids: list[int] = []
    while core.has_work:
        result = core.step()
        failures |= result.failures
        ids += [
            token_id for output in result.outputs if output.request_id == "good" for token_id in output.new_token_ids
        ]
        core.check_integrity()
    assert list(failures) == ["bad"]
    assert words in str(failures["bad"])
    assert "secret" not in str(failures["bad"])
    assert len(ids) == 8
    core.check_idle()


def test_only_allowed_ids_are_drawn(model: Model) -> None:
    [ids] = run(
        make_core(model), [spec("r", [1], None, allowed_token_ids=(3, 64, 94), temperature=2.0, seed=1)]
    ).values()
    assert set(ids) == {3, 64, 94}
    assert len(ids) == 40


def test_allowed_ids_and_a_constraint_hold_both(model: Model) -> None:
    asked = spec("r", [1], Alternating(6), allowed_token_ids=(4, 7, END))
    assert run(make_core(model), [asked])["r", 0] == (4, 7, 4, 7, 4, 7)


def test_ids_that_leave_nothing_of_the_grammar_are_refused_as_such(model: Model) -> None:
    core = make_core(model)
    core.add(spec("r", [1], Alternating(6), allowed_token_ids=(4,)))
    failures: dict[str, CorralError] = {}
    while core.has_work:
        failures |= core.step().failures
    assert isinstance(failures["r"], InvalidRequest)
    assert failures["r"].param == "allowed_token_ids"


def test_allowed_ids_are_in_the_vocabulary(model: Model) -> None:
    with pytest.raises(InvalidRequest, match=f"allowed_token_ids has token id {VOCAB_SIZE}"):
        make_core(model).add(spec("r", [1], None, allowed_token_ids=(1, VOCAB_SIZE)))


def test_bad_token_sequences_are_not_completed(model: Model) -> None:
    free = run(make_core(model), [spec("r", [1, 2, 3], None, ignore_eos=True)])["r", 0]
    single, pair = free[0], (free[4], free[5])

    def ask(*bad: tuple[int, ...]) -> tuple[int, ...]:
        sampling = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
        return run(make_core(model), [SequenceGroupSpec("r", [1, 2, 3], sampling, bad_ids=bad)])["r", 0]

    assert single not in ask((single,))
    without_pair = ask(pair)
    assert without_pair[:5] == free[:5]
    assert pair not in list(itertools.pairwise(without_pair))
    # What the prompt ends with is no part of the answer.
    assert ask((3, single))[0] == single
