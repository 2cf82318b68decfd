from __future__ import annotations

from typing import Any

import numpy as np

from corral.engine.sampler import build_sampling_arrays
from corral.engine.sequence import Sequence, SequenceGroup, SequenceGroupSpec
from corral.sampling_params import SamplingParams


def make_sequence(prompt: list[int], output: list[int], *, index: int = 0, **params: Any) -> Sequence:
    spec = SequenceGroupSpec("r", prompt, SamplingParams(n=index + 1, **params), frozenset({7, 9, 400}))
    sequence = SequenceGroup(spec, first_seq_id=0, max_model_len=64, vocab_size=100).sequences[index]
    sequence.token_ids.extend(output)
    return sequence


def test_each_row_has_its_own_parameters() -> None:
    arrays = build_sampling_arrays(
        [
            make_sequence([1], [], temperature=0.0),
            make_sequence([1, 2, 3], [4], temperature=0.5, top_k=-1, top_p=0.9, min_p=0.1, seed=5, index=2),
            make_sequence([1, 2], [], top_k=40, repetition_penalty=1.5, seed=-1),
        ]
    )
    np.testing.assert_array_equal(arrays.temperature, np.array([0, 0.5, 1], dtype=np.float32))
    np.testing.assert_array_equal(arrays.top_k, [0, 0, 40])
    np.testing.assert_array_equal(arrays.top_p, np.array([1, 0.9, 1], dtype=np.float32))
    np.testing.assert_array_equal(arrays.min_p, np.array([0, 0.1, 0], dtype=np.float32))
    np.testing.assert_array_equal(arrays.repetition_penalty, np.array([1, 1, 1.5], dtype=np.float32))
    np.testing.assert_array_equal(arrays.seeds[1:], np.array([7, (1 << 64) - 1], dtype=np.uint64))
    np.testing.assert_array_equal(arrays.positions, [1, 4, 2])


def test_dtypes_are_those_of_the_native_seam() -> None:
    arrays = build_sampling_arrays([make_sequence([1], [], logit_bias={3: 1.0})])
    kinds = {"seeds": np.uint64, "positions": np.int64} | dict.fromkeys(
        ("top_k", "history_offsets", "history_ids", "output_starts", "bias_offsets", "bias_ids"), np.int32
    )
    for name in arrays.__slots__:
        array = getattr(arrays, name)
        assert array.dtype == kinds.get(name, np.float32), name
        assert array.flags.c_contiguous, name


def test_history_is_there_only_where_a_penalty_is_set() -> None:
    arrays = build_sampling_arrays(
        [
            make_sequence([1, 2], [3]),
            make_sequence([4, 5], [6, 7], presence_penalty=0.5),
            make_sequence([8], [], frequency_penalty=-0.5),
            make_sequence([9], [10], repetition_penalty=1.1),
        ]
    )
    assert arrays.history_ids.tolist() == [4, 5, 6, 7, 8, 9, 10]
    assert arrays.history_offsets.tolist() == [0, 0, 4, 5, 7]
    assert arrays.output_starts.tolist() == [0, 2, 1, 1]


def test_stop_tokens_are_out_of_reach_before_min_tokens() -> None:
    early = make_sequence([1], [2], min_tokens=2, logit_bias={9: 5.0, 11: 2.0})
    late = make_sequence([1], [2, 3], min_tokens=2, logit_bias={9: 5.0})
    deaf = make_sequence([1], [], min_tokens=2, ignore_eos=True, stop_token_ids=(20,))
    arrays = build_sampling_arrays([early, late, deaf])
    assert arrays.bias_offsets.tolist() == [0, 3, 4, 5]
    biases = dict(zip(arrays.bias_ids[:3].tolist(), arrays.bias_values[:3].tolist(), strict=True))
    assert biases[11] == 2.0
    assert biases[7] == biases[9] < -1e29
    assert np.isfinite(arrays.bias_values).all()
    assert (arrays.bias_ids[3], arrays.bias_values[3]) == (9, 5.0)
    assert arrays.bias_ids[4] == 20


def test_a_sequence_can_grow_after_its_arrays_were_built() -> None:
    sequence = make_sequence([1, 2], [3], presence_penalty=1.0)
    arrays = build_sampling_arrays([sequence])
    sequence.token_ids.append(4)
    assert arrays.history_ids.tolist() == [1, 2, 3]


def test_a_penalty_window_cuts_the_history() -> None:
    def history(window: int | None, **penalty: float) -> tuple[list[int], int]:
        penalties = penalty or {"repetition_penalty": 1.1}
        arrays = build_sampling_arrays([make_sequence([1, 2, 3], [4, 5], penalty_window=window, **penalties)])
        return arrays.history_ids.tolist(), int(arrays.output_starts[0])

    assert history(None) == history(5) == history(64) == ([1, 2, 3, 4, 5], 3)
    assert history(4) == ([2, 3, 4, 5], 2)
    assert history(2) == ([4, 5], 0)
    assert history(1) == ([5], 0)
    assert history(0) == ([], 0)
    assert history(3, repetition_penalty=1.0) == ([], 0)
