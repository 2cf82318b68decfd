from __future__ import annotations

from typing import Any

import pytest

from corral.engine.sequence import SequenceGroup, SequenceGroupSpec
from corral.request import FinishReason
from corral.sampling_params import SamplingParams


def make_group(prompt_len: int = 10, eog: frozenset[int] = frozenset({7}), **params: Any) -> SequenceGroup:
    spec = SequenceGroupSpec("r", [1] * prompt_len, SamplingParams(**params), eog)
    return SequenceGroup(spec, first_seq_id=5, max_model_len=32, vocab_size=100)


@pytest.mark.parametrize(("max_tokens", "max_length"), [(None, 32), (4, 14), (22, 32), (1000, 32)])
def test_the_longest_answer_is_bounded_by_max_tokens_and_the_context(max_tokens: int | None, max_length: int) -> None:
    assert make_group(max_tokens=max_tokens).max_length == max_length


def test_stop_ids_are_the_models_and_the_users() -> None:
    assert make_group(stop_token_ids=(3,)).stop_ids == {3, 7}
    assert make_group(stop_token_ids=(3,), ignore_eos=True).stop_ids == {3}
    assert make_group(eog=frozenset({7, 100})).stop_ids == {7}, "beyond the vocabulary: can never be drawn"


def test_each_sequence_has_a_seed_and_an_age_of_its_own() -> None:
    group = make_group(n=3, seed=(1 << 64) - 2)
    assert [s.seed for s in group.sequences] == [(1 << 64) - 2, (1 << 64) - 1, 0]
    assert [s.seq_id for s in group.sequences] == [5, 6, 7]
    assert make_group(seed=-1).seed == (1 << 64) - 1


def test_sequences_grow_apart() -> None:
    first, second = make_group(n=2).sequences
    first.token_ids.append(9)
    assert (first.num_tokens, first.num_output_tokens, first.output_ids.tolist()) == (11, 1, [9])
    assert (second.num_tokens, second.num_output_tokens) == (10, 0)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ([2], None),
        ([7], FinishReason.STOP),
        ([2, 2, 2], FinishReason.LENGTH),
        ([2, 2, 7], FinishReason.STOP),
    ],
)
def test_a_sequence_ends_by_its_last_token_or_its_length(output: list[int], reason: FinishReason | None) -> None:
    (sequence,) = make_group(max_tokens=3).sequences
    sequence.token_ids.extend(output)
    assert sequence.find_finish(output[-1]) is reason
