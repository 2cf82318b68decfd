"""Sampling against NumPy: every step of the chain, ties, seeds and rows that allow nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.native.tiny_model import F32, Runner, Shape, build_model, random_weights

from corral import _native

VOCAB = 3000  # more than two blocks of sums, not a multiple of 16 or 32 or 1024
SHAPE = Shape(num_layers=1, layer_is_local=(False,), hidden_size=16, vocab_size=VOCAB, extras=frozenset({"output"}))


class Sampling:
    """A model whose logits are what the test wants: the head is the identity on a one-hot of the wanted row."""

    def __init__(self, num_threads: int = 2) -> None:
        self.num_threads = num_threads

    def set_logits(self, logits: F32) -> None:
        """`logits`: [rows <= 16, VOCAB]. The residual stream of token r is sqrt(16) * e_r, the norm keeps it."""
        rows = len(logits)
        weights = random_weights(SHAPE)
        for key, values in weights.items():
            values[...] = 0 if key[0] not in ("attn_norm", "ffn_norm", "output_norm") else 1
        weights["token_embd", -1][np.arange(16), np.arange(16)] = 4.0
        weights["output", -1][:, :rows] = logits.T / 4.0
        model = build_model(SHAPE.with_(norm_eps=0.0), weights, self.num_threads)
        self.runner = Runner(model, VOCAB, num_blocks=1, max_tokens=16)
        self.rows = rows
        got = self.runner.step({"a": list(range(rows))})["a"]
        np.testing.assert_array_equal(got, logits)

    def sample(self, **settings: Any) -> npt.NDArray[np.int32]:
        def full(name: str, default: float, dtype: Any) -> npt.NDArray[Any]:
            return np.ascontiguousarray(np.broadcast_to(np.array(settings.pop(name, default), dtype), self.rows))

        def parts(lists: list[list[Any]]) -> tuple[npt.NDArray[np.int32], list[Any]]:
            return np.cumsum([0] + [len(part) for part in lists], dtype=np.int32), [x for part in lists for x in part]

        history_offsets, history = parts(settings.pop("history", [[]] * self.rows))
        bias_offsets, bias = parts([list(row.items()) for row in settings.pop("bias", [{}] * self.rows)])
        allowed = settings.pop("allowed", None)
        arguments: dict[str, Any] = {
            "temperature": full("temperature", 1.0, np.float32),
            "top_k": full("top_k", 0, np.int32),
            "top_p": full("top_p", 1.0, np.float32),
            "min_p": full("min_p", 0.0, np.float32),
            "repetition_penalty": full("repetition_penalty", 1.0, np.float32),
            "presence_penalty": full("presence_penalty", 0.0, np.float32),
            "frequency_penalty": full("frequency_penalty", 0.0, np.float32),
            "seeds": full("seeds", 0, np.uint64),
            "positions": full("positions", 0, np.int64),
            "history_offsets": history_offsets,
            "history_ids": np.array(history, np.int32),
            "output_starts": full("output_starts", 0, np.int32),
            "bias_offsets": bias_offsets,
            "bias_ids": np.array([token for token, _ in bias], np.int32),
            "bias_values": np.array([value for _, value in bias], np.float32),
            "mask": None if allowed is None else pack_mask(allowed),
        }
        assert not settings, settings
        return self.runner.decoder.sample(**arguments)

    def draws(self, count: int, **settings: Any) -> npt.NDArray[np.int32]:
        """[count, rows]: one draw for each of `count` positions."""
        return np.array([self.sample(positions=position, **settings) for position in range(count)])


def pack_mask(allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    padded = np.zeros((len(allowed), -(-VOCAB // 32) * 32), np.uint8)
    padded[:, :VOCAB] = allowed
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint32)


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    p = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(p / p.sum(), np.float64)


def random_logits(rows: int, seed: int = 0, scale: float = 2.0) -> F32:
    """Multiples of 1/256, so that they pass through the head unchanged."""
    values = np.random.default_rng(seed).standard_normal((rows, VOCAB)) * scale
    return (np.round(values * 256) / 256).astype(np.float32)


@pytest.fixture(scope="module")
def sampling() -> Sampling:
    made = Sampling()
    made.set_logits(random_logits(4))
    return made


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logits = random_logits(3)
    logits[0, [2999, 1024, 77]] = 50.0
    logits[1, [2999, 2998]] = 50.0
    logits[2, 0] = 50.0
    made = Sampling()
    made.set_logits(logits)
    assert made.sample(temperature=0.0).tolist() == [77, 2998, 0]


@pytest.mark.parametrize(
    ("settings", "keep"),
    [
        ({"top_k": 1}, lambda p: np.argsort(-p, kind="stable")[:1]),
        ({"top_k": 5}, lambda p: np.argsort(-p, kind="stable")[:5]),
        ({"top_p": 0.05}, lambda p: nucleus(p, 0.05)),
        ({"top_p": 0.3}, lambda p: nucleus(p, 0.3)),
        ({"min_p": 0.2}, lambda p: np.flatnonzero(p >= 0.2 * p.max())),
        ({"top_k": 20, "top_p": 0.5}, lambda p: nucleus(only(p, np.argsort(-p, kind="stable")[:20]), 0.5)),
        ({"min_p": 0.1, "top_p": 0.5}, lambda p: nucleus(only(p, np.flatnonzero(p >= 0.1 * p.max())), 0.5)),
        ({"min_p": 0.1, "top_k": 3}, lambda p: np.argsort(-p, kind="stable")[:3]),
    ],
)
def test_draws_come_from_the_kept_set_and_reach_all_of_it(settings: dict[str, Any], keep: Any) -> None:
    logits = random_logits(2, seed=3)
    made = Sampling()
    made.set_logits(logits)
    draws = made.draws(600, **settings)
    for row in range(2):
        kept = set(keep(softmax(logits[row])).tolist())
        drawn = set(draws[:, row].tolist())
        assert drawn <= kept
        assert len(kept) > 40 or drawn == kept or len(drawn) > 0.5 * len(kept)


def only(p: npt.NDArray[np.float64], ids: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    out = np.zeros_like(p)
    out[ids] = p[ids] / p[ids].sum()
    return out


def nucleus(p: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.intp]:
    order = np.argsort(-p, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(p[order]), top_p - 1e-9)) + 1]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"top_k": 8}, {"top_p": 0.9}, {"min_p": 0.02}])
def test_frequencies_follow_the_probabilities(settings: dict[str, Any]) -> None:
    """10 likely tokens in a sea of unlikely ones; 3000 draws lie within 5 standard deviations."""
    logits = np.full((1, VOCAB), -20.0, np.float32)
    logits[0, 100:2600:250] = np.arange(10) / 4
    made = Sampling(num_threads=1)
    made.set_logits(logits)
    p = softmax(logits[0] / np.float32(settings.get("temperature", 1.0)))
    if "top_k" in settings:
        p = only(p, np.argsort(-p, kind="stable")[:8])
    if "top_p" in settings:
        p = only(p, nucleus(p, 0.9))
    if "min_p" in settings:
        p = only(p, np.flatnonzero(p >= 0.02 * p.max()))
    counts = np.bincount(made.draws(3000, **settings)[:, 0], minlength=VOCAB)
    deviation = np.sqrt(3000 * p * (1 - p)) + 1e-3
    assert np.all(np.abs(counts - 3000 * p) <= 5 * deviation)


def test_the_draw_depends_on_seed_and_position_alone(sampling: Sampling) -> None:
    one = sampling.draws(20, seeds=[1, 2, 3, 2**64 - 1])
    np.testing.assert_array_equal(sampling.draws(20, seeds=[1, 2, 3, 2**64 - 1]), one)
    assert len(np.unique(one[:, 0])) > 10
    same = Sampling(num_threads=1)
    same.set_logits(np.repeat(random_logits(4)[1:2], 3, axis=0))
    np.testing.assert_array_equal(same.draws(20, seeds=2), np.repeat(one[:, 1:2], 3, axis=1))
    assert not np.array_equal(sampling.draws(20, seeds=[5, 6, 7, 8]), one)


@pytest.mark.parametrize("isa", _native.cpu_info()["isas"])
def test_every_isa_draws_the_same(isa: str) -> None:
    active = _native.cpu_info()["isa"]
    logits = random_logits(4, seed=8)
    settings: list[dict[str, Any]] = [{}, {"top_k": 40}, {"top_p": 0.8}, {"min_p": 0.01, "temperature": 1.7}]
    results = []
    try:
        for name in ("scalar", isa):
            _native.select_isa(name)
            made = Sampling()
            made.set_logits(logits)
            results.append([made.draws(10, seeds=3, **each) for each in settings])
    finally:
        _native.select_isa(active)
    np.testing.assert_array_equal(results[0], results[1])


def test_penalties_equal_those_of_numpy(sampling: Sampling) -> None:
    logits = random_logits(4)
    history = [[5, 5, 9, 100, 9, 9], [7, 8, 7], [], [2999, 0, 2999]]
    starts = [2, 0, 0, 3]
    repetition, presence, frequency = 1.5, 0.4, 0.3
    allowed = np.zeros((4, VOCAB), bool)
    for row in range(4):
        allowed[row, [0, 5, 7, 8, 9, 100, 2999]] = True
        want = logits[row].copy()
        for token in set(history[row]):
            want[token] = want[token] / repetition if want[token] > 0 else want[token] * repetition
            count = history[row][starts[row] :].count(token)
            want[token] -= frequency * count + presence * (count > 0)
        order = np.argsort(-np.where(allowed[row], want, -np.inf), kind="stable")
        for rank in range(3):  # the ranking is found by taking the best one away
            got = sampling.sample(
                temperature=0.0,
                history=history,
                output_starts=starts,
                repetition_penalty=repetition,
                presence_penalty=presence,
                frequency_penalty=frequency,
                allowed=allowed,
            )
            assert got[row] == order[rank]
            allowed[row, order[rank]] = False


def test_bias_is_added_and_the_logits_stay(sampling: Sampling) -> None:
    before = sampling.runner.decoder.logits()
    got = sampling.sample(
        temperature=0.0, bias=[{17: 100.0}, {0: 50.0, 2999: 60.0}, {}, {int(before[3].argmax()): -100.0}]
    )
    assert got[:3].tolist() == [17, 2999, before[2].argmax()]
    assert got[3] == np.argsort(-before[3])[1]
    np.testing.assert_array_equal(sampling.runner.decoder.logits(), before)


def test_the_mask_allows_only_its_tokens(sampling: Sampling) -> None:
    allowed = np.zeros((4, VOCAB), bool)
    for row, ids in enumerate(([3], [31, 32, 33], [2999], [1023, 1024])):
        allowed[row, ids] = True
    for settings in ({}, {"top_k": 50}, {"top_p": 0.5}, {"temperature": 0.0}, {"min_p": 0.5}):
        for draw in sampling.draws(20, allowed=allowed, seeds=4, **settings):
            assert all(allowed[row, token] for row, token in enumerate(draw))


def test_rows_without_an_answer_give_minus_one(sampling: Sampling) -> None:
    allowed = np.ones((4, VOCAB), bool)
    allowed[1] = False
    for settings in ({}, {"temperature": 0.0}, {"top_k": 4}, {"top_p": 0.5}):
        got = sampling.sample(allowed=allowed, **settings)
        assert got[1] == -1
        assert all(got[[0, 2, 3]] >= 0)


def test_nan_gives_minus_one_and_harms_no_other_row() -> None:
    weights = random_weights(SHAPE)
    weights["token_embd", -1][3, 5] = np.nan
    made = Sampling()
    made.runner = Runner(build_model(SHAPE, weights, 2), VOCAB, num_blocks=4, max_tokens=16)
    made.rows = 2
    logits = made.runner.step({"a": [1], "b": [3]})
    assert np.isfinite(logits["a"]).all()
    assert np.isnan(logits["b"]).all()
    for settings in ({}, {"temperature": 0.0}, {"top_k": 4}, {"top_p": 0.5}, {"min_p": 0.1}):
        got = made.sample(**settings)
        assert got[0] >= 0
        assert got[1] == -1


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e30])
def test_extreme_temperatures(sampling: Sampling, temperature: float) -> None:
    best = sampling.sample(temperature=0.0)
    for settings in ({}, {"top_k": 10}, {"top_p": 0.9}, {"min_p": 0.1}):
        got = sampling.sample(temperature=temperature, **settings)
        assert all(0 <= token < VOCAB for token in got)
        if temperature < 1:
            np.testing.assert_array_equal(got, best)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, r"temperature\[0\] is -0.100000; it must be finite and at least 0"),
        ({"temperature": np.nan}, "temperature"),
        ({"top_p": 0.0}, r"top_p\[0\] is 0.000000; it must be above 0 and at most 1"),
        ({"min_p": 1.5}, r"min_p\[0\] is 1.500000"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"presence_penalty": np.inf}, "presence_penalty"),
        ({"history": [[VOCAB], [], [], []]}, r"history_ids\[0\] is 3000; it must be from 0 to 2999"),
        ({"history": [[1], [], [], []], "output_starts": [2, 0, 0, 0]}, r"output_starts\[0\] is 2; .* 0 to 1"),
        ({"bias": [{-1: 1.0}, {}, {}, {}]}, r"bias_ids\[0\] is -1"),
        ({"bias": [{1: np.nan}, {}, {}, {}]}, r"bias_values\[0\] is nan"),
        ({"allowed": np.ones((3, VOCAB), bool)}, "the number of mask rows is 3"),
    ],
)
def test_sample_refuses(sampling: Sampling, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampling.sample(**settings)
