"""The law: a row's logits are the same bits alone, in any batch, at any cut of the prompt, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from tests.native.tiny_model import F32, Q8_0_TYPE, Runner, Shape, build_model, random_weights

from corral import _native

FLOAT = Shape(num_heads=6, rope_style="half", extras=frozenset({"attn_q_norm", "attn_k_norm", "output"}))
QUANTISED = FLOAT.with_(weight_type=Q8_0_TYPE, hidden_size=96, intermediate_size=288, vocab_size=70)
LOCAL = QUANTISED.with_(layer_is_local=(True, False), sliding_window=30, has_local_rope=True, attn_softcap=5.0)
SHAPES = {"float": FLOAT, "quantised": QUANTISED, "local": LOCAL}
LONG = 300  # more than one chunk of attention


def prompt(shape: Shape, seed: int, length: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, shape.vocab_size, length)]


def alone(shape: Shape, ids: list[int], *, chunk: int = 512, num_threads: int = 1) -> F32:
    model = build_model(shape, random_weights(shape), num_threads)
    return Runner(model, shape.vocab_size, max_tokens=512).logits("a", ids, chunk=chunk)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("chunk", [1, 3, 7, 64, 299])
def test_the_cut_of_the_prompt_changes_nothing(name: str, chunk: int) -> None:
    ids = prompt(SHAPES[name], 1, LONG)
    np.testing.assert_array_equal(alone(SHAPES[name], ids, chunk=chunk), alone(SHAPES[name], ids))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("num_threads", [2, 3])
@pytest.mark.parametrize("chunk", [1, 4, 5, 300])
def test_the_number_of_threads_changes_nothing(name: str, num_threads: int, chunk: int) -> None:
    ids = prompt(SHAPES[name], 2, LONG)
    got = alone(SHAPES[name], ids, chunk=chunk, num_threads=num_threads)
    np.testing.assert_array_equal(got, alone(SHAPES[name], ids))


@pytest.mark.parametrize("name", SHAPES)
def test_the_company_changes_nothing(name: str) -> None:
    shape = SHAPES[name]
    prompts = {f"s{i}": prompt(shape, 10 + i, 5 + 9 * i) for i in range(12)}
    want = {key: alone(shape, ids) for key, ids in prompts.items()}
    runner = Runner(build_model(shape, random_weights(shape), 2), shape.vocab_size, num_blocks=128, max_tokens=256)
    rng = np.random.default_rng(3)
    left = {key: list(ids) for key, ids in prompts.items()}
    got: dict[str, list[F32]] = {key: [] for key in prompts}
    while left:  # steps of random company: some sequences take one token, others several
        parts = {key: ids[: int(rng.integers(1, 20))] for key, ids in left.items() if rng.random() < 0.7}
        if not parts:
            continue
        for key, logits in runner.step(parts).items():
            got[key].append(logits)
            left[key] = left[key][len(parts[key]) :]
        left = {key: ids for key, ids in left.items() if ids}
    for key in prompts:
        np.testing.assert_array_equal(np.concatenate(got[key]), want[key], err_msg=key)


@pytest.mark.parametrize("name", SHAPES)
def test_every_isa_gives_the_same_bits(name: str) -> None:
    info = _native.cpu_info()
    ids = prompt(SHAPES[name], 4, LONG)
    results = {}
    try:
        for isa in info["isas"]:
            _native.select_isa(isa)
            results[isa] = alone(SHAPES[name], ids, chunk=64)
    finally:
        _native.select_isa(info["isa"])
    assert "scalar" in results
    for isa, logits in results.items():
        np.testing.assert_array_equal(logits, results["scalar"], err_msg=isa)
