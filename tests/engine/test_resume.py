"""A request that one engine has begun, and another goes on with: the same tokens as if nothing had happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engine.core import EngineCore
from corral.engine.output import TokenLogprobs
from corral.engine.sequence import SequenceGroupSpec
from corral.errors import ContextLengthExceeded, InvalidRequest
from corral.request import AnswerSoFar
from corral.sampling_params import SamplingParams
from tests.support.fake_runner import Expected, FakeRunner, expect, make_core

PROMPT = list(range(1, 21))


class Answers:
    """What the n answers of a request have come to."""

    def __init__(self, spec: SequenceGroupSpec) -> None:
        self.spec = spec
        self.found: dict[int, Expected] = {}
        self.tokens: list[list[int]] = [list(answer.token_ids) for answer in spec.resumed]
        self.tokens = self.tokens or [[] for _ in range(spec.sampling.n)]
        self.scores: list[TokenLogprobs] = []

    def step(self, core: EngineCore) -> None:
        for output in core.step().outputs:
            self.tokens[output.index].extend(output.new_token_ids)
            self.scores += output.prompt_logprobs
            if output.finish_reason is not None:
                tokens = tuple(self.tokens[output.index])
                self.found[output.index] = Expected(tokens, output.finish_reason, output.stop_token)
        core.check_integrity()

    def so_far(self) -> tuple[AnswerSoFar, ...]:
        return tuple(AnswerSoFar(tuple(ids), index in self.found) for index, ids in enumerate(self.tokens))


def resumed(spec: SequenceGroupSpec, answers: tuple[AnswerSoFar, ...]) -> SequenceGroupSpec:
    return SequenceGroupSpec(spec.request_id, spec.prompt_ids, spec.sampling, eog_ids=spec.eog_ids, resumed=answers)


def run(spec: SequenceGroupSpec, num_steps: int | None = None, num_blocks: int = 64) -> Answers:
    core = make_core(FakeRunner(num_blocks=num_blocks))
    answers = Answers(spec)
    core.add(spec)
    while core.has_work and num_steps != 0:
        answers.step(core)
        num_steps = None if num_steps is None else num_steps - 1
    return answers


@given(
    n=st.integers(1, 4),
    num_steps=st.integers(0, 60),
    seed=st.integers(0, 5),
    eog_id=st.integers(0, 49),
    num_blocks=st.sampled_from([9, 12, 64]),
)
def test_it_goes_on_as_if_nothing_had_happened(n: int, num_steps: int, seed: int, eog_id: int, num_blocks: int) -> None:
    sampling = SamplingParams(n=n, max_tokens=40, seed=seed, temperature=1.0, min_tokens=3)
    spec = SequenceGroupSpec("r", PROMPT, sampling, eog_ids=frozenset([eog_id]))
    before = run(spec, num_steps, num_blocks=num_blocks)
    again = resumed(spec, before.so_far())
    wanted = {index: expect(again, index) for index in range(n)}
    if len(before.found) == n:
        return
    after = run(again, num_blocks=num_blocks)
    assert before.found | after.found == wanted
    assert before.found.keys().isdisjoint(after.found)
    assert again.num_unfinished == len(after.found)


def test_prompts_are_scored_once() -> None:
    spec = SequenceGroupSpec("r", PROMPT, SamplingParams(max_tokens=5, prompt_logprobs=0, temperature=0.0))
    before = run(spec, 3)
    assert len(before.scores) == len(PROMPT) - 1
    assert not run(resumed(spec, before.so_far())).scores


def test_an_answer_that_fills_a_smaller_context_is_refused() -> None:
    spec = resumed(SequenceGroupSpec("r", PROMPT, SamplingParams(n=2)), (AnswerSoFar((1,) * 12), AnswerSoFar((2,))))
    with pytest.raises(ContextLengthExceeded, match="12 tokens of an answer are known"):
        make_core(FakeRunner(), max_model_len=32).add(spec)
    done = resumed(spec, (AnswerSoFar((1,) * 12, is_finished=True), AnswerSoFar((2,))))
    make_core(FakeRunner(), max_model_len=32).add(done)


def test_its_tokens_are_checked() -> None:
    spec = SequenceGroupSpec("r", PROMPT, SamplingParams(), resumed=(AnswerSoFar((1, 50)),))
    with pytest.raises(InvalidRequest, match="resumed has token id 50"):
        make_core(FakeRunner()).add(spec)
