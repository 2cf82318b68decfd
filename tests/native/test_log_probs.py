"""Log-probabilities of rows of logits against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from tests.native.tiny_model import F32, Runner, Shape, build_model, random_weights

from corral import _native

SHAPE = Shape(vocab_size=2500)  # more than one block of the vocabulary
IDS = [3, 1500, 7, 2499, 42]


def run(shape: Shape = SHAPE, *, num_threads: int = 1, spoil: bool = False, repeat: bool = False) -> tuple[Runner, F32]:
    """A runner after one step of IDS, and its logits."""
    weights = random_weights(shape)
    embedding = weights["token_embd", -1]
    if repeat:  # all logits come in fives
        embedding[:] = np.repeat(embedding[::5], 5, axis=0)
    if spoil:
        embedding[IDS[-1]] = np.nan
    runner = Runner(build_model(shape, weights, num_threads), shape.vocab_size)
    return runner, runner.step({"a": IDS})["a"]


def look_up(runner: Runner, rows: list[int], token_ids: list[int], top: int) -> tuple[F32, F32, F32]:
    found = runner.decoder.log_probs(np.array(rows, np.int32), np.array(token_ids, np.int32), top)
    return found[0], found[1].astype(np.float32), found[2]


def log_softmax(logits: F32) -> F32:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float32)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("top", [0, 1, 20, 64])
def test_they_equal_those_of_numpy(top: int, num_threads: int) -> None:
    runner, logits = run(num_threads=num_threads)
    rows, token_ids = [4, 0, 2, 4], [9, 2499, 0, 1024]
    own, ids, others = look_up(runner, rows, token_ids, top)
    want = log_softmax(logits)[rows]
    np.testing.assert_allclose(own, want[range(4), token_ids], rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(ids, np.argsort(-logits[rows], axis=1, kind="stable")[:, :top])
    np.testing.assert_allclose(others, -np.sort(-want, axis=1)[:, :top], rtol=2e-6, atol=2e-6)


def test_the_lower_id_comes_first_among_equals() -> None:
    runner, logits = run(repeat=True)
    _, ids, _ = look_up(runner, [1], [0], 64)
    np.testing.assert_array_equal(ids[0], np.argsort(-logits[1], kind="stable")[:64])


def test_a_small_vocabulary_can_be_asked_for_whole() -> None:
    shape = Shape(vocab_size=7)
    runner = Runner(build_model(shape, random_weights(shape)), 7)
    logits = runner.step({"a": [1, 2]})["a"]
    _, ids, others = look_up(runner, [1], [0], 7)
    np.testing.assert_array_equal(ids[0], np.argsort(-logits[1], kind="stable"))
    assert np.exp(others.astype(np.float64)).sum() == pytest.approx(1, abs=1e-6)


def test_every_isa_gives_the_same_bits() -> None:
    info = _native.cpu_info()
    found = {}
    try:
        for isa in info["isas"]:
            _native.select_isa(isa)
            found[isa] = np.concatenate([part.ravel() for part in look_up(run()[0], [0, 3], [5, 6], 20)])
    finally:
        _native.select_isa(info["isa"])
    for isa, values in found.items():
        np.testing.assert_array_equal(values, found["scalar"], err_msg=isa)


def test_a_row_that_is_not_finite_has_none_and_spoils_no_other() -> None:
    runner, logits = run(spoil=True)
    assert np.isnan(logits[-1]).any()
    own, _, others = look_up(runner, [4, 4], [0, 1], 3)
    assert np.isnan(own).all()
    assert np.isnan(others).all()


@pytest.mark.parametrize(
    ("rows", "token_ids", "top", "words"),
    [
        ([5], [0], 0, r"rows\[0\] is 5; it must be from 0 to 4"),
        ([-1], [0], 0, r"rows\[0\] is -1"),
        ([0], [2500], 0, r"token_ids\[0\] is 2500"),
        ([0, 1], [0], 0, "token_ids has 1 values; it must have 2"),
        ([0], [0], 65, "top is 65; it must be from 0 to 64"),
        ([0], [0], -1, "top is -1"),
    ],
)
def test_what_is_refused(rows: list[int], token_ids: list[int], top: int, words: str) -> None:
    runner, _ = run()
    with pytest.raises(ValueError, match=words):
        look_up(runner, rows, token_ids, top)
