"""The decoder against NumPy: every switch of the config, paging and cuts."""

from __future__ import annotations

import numpy as np
import pytest
from tests.native.tiny_model import F32, Runner, Shape, build_model, random_weights, reference_logits

QK_NORM = frozenset({"attn_q_norm", "attn_k_norm"})
POST_NORM = frozenset({"attn_post_norm", "ffn_post_norm"})
BIAS = frozenset({"attn_q_bias", "attn_k_bias", "attn_v_bias", "attn_output_bias"})

LLAMA = Shape(extras=frozenset({"output"}))
SHAPES = {
    "llama": LLAMA,
    "tied head": Shape(),
    "qwen2": Shape(rope_style="half", extras=BIAS),
    "qwen3": Shape(rope_style="half", head_dim=32, rope_dim=32, extras=QK_NORM),
    "gemma3": Shape(
        num_layers=3,
        rope_style="half",
        activation="gelu_tanh",
        embedding_scale=8.0,
        sliding_window=20,
        layer_is_local=(True, True, False),
        has_local_rope=True,
        extras=QK_NORM | POST_NORM,
    ),
    "soft caps": Shape(attn_softcap=2.0, logit_softcap=3.0),
    "partial rope": Shape(rope_dim=6, rope_style="half", rope_attn_factor=1.3),
    "no rope": Shape(rope_dim=0),
    "group of 1": Shape(num_heads=3, num_kv_heads=3),
    "group of 3": Shape(num_heads=6, num_kv_heads=2),
    "group of 7": Shape(num_heads=7, num_kv_heads=1),
    "group of 40": Shape(num_heads=40, num_kv_heads=1, head_dim=8, rope_dim=8),
    "head of 24": Shape(head_dim=24, rope_dim=24),
    "head of 128": Shape(head_dim=128, rope_dim=128, num_layers=1, layer_is_local=(False,)),
    "odd sizes": Shape(hidden_size=72, intermediate_size=100, vocab_size=51, head_dim=40, rope_dim=20),
}


def tokens(count: int, vocab_size: int = 50, seed: int = 1) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, vocab_size, count)]


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_those_of_numpy(name: str) -> None:
    shape = SHAPES[name]
    weights = random_weights(shape)
    ids = tokens(60)
    got = Runner(build_model(shape, weights), shape.vocab_size).logits("a", ids, chunk=23)
    want = reference_logits(shape, weights, ids)
    np.testing.assert_allclose(got, want, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 255, 300])
def test_a_query_sees_exactly_the_window(window: int) -> None:
    shape = Shape(num_layers=1, layer_is_local=(True,), sliding_window=window)
    weights = random_weights(shape)
    ids = tokens(330)
    got = Runner(build_model(shape, weights), shape.vocab_size, max_tokens=330).logits("a", ids, chunk=330)
    want = reference_logits(shape, weights, ids)
    np.testing.assert_allclose(got, want, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("num_threads", [1, 2])
def test_long_contexts_are_split_and_merged(num_threads: int) -> None:
    shape = Shape(num_layers=1, layer_is_local=(False,))
    weights = random_weights(shape)
    ids = tokens(1100)
    runner = Runner(build_model(shape, weights, num_threads), shape.vocab_size, num_blocks=80, max_tokens=512)
    got = np.concatenate([runner.logits("a", ids[:-1], chunk=512), runner.step({"a": ids[-1:]})["a"]])
    want = reference_logits(shape, weights, ids)
    np.testing.assert_allclose(got, want, atol=2e-3 * np.abs(want).max())


def test_only_the_wanted_rows_get_logits_in_the_order_asked() -> None:
    shape = LLAMA
    model = build_model(shape, random_weights(shape))
    ids = np.array(tokens(9), np.int32)
    decoder = Runner(model, 50).decoder

    def run(rows: list[int]) -> F32:
        decoder.forward(
            ids,
            np.array([0, 9], np.int32),
            np.array([0], np.int32),
            np.zeros((1, 1), np.int32),
            np.array(rows, np.int32),
        )
        return decoder.logits()

    every = run(list(range(9)))
    for rows in ([8], [3, 0, 8], [5, 5, 5, 5, 5, 5, 1]):
        np.testing.assert_array_equal(run(rows), every[rows])
    assert run([]).shape == (0, 50)


def test_copied_blocks_carry_the_context() -> None:
    shape = LLAMA
    runner = Runner(build_model(shape, random_weights(shape)), 50)
    ids = tokens(16)
    decoder, cache = runner.decoder, runner.kv_cache

    def run(start: int, part: list[int], table: list[int]) -> F32:
        decoder.forward(
            np.array(part, np.int32),
            np.array([0, len(part)], np.int32),
            np.array([start], np.int32),
            np.array([table], np.int32),
            np.array([len(part) - 1], np.int32),
        )
        return decoder.logits()

    run(0, ids, [3])
    want = run(16, [1], [3, 4])
    cache.copy_blocks(np.array([3], np.int32), np.array([9], np.int32))
    cache.release_blocks(np.array([3, 4], np.int32))
    np.testing.assert_array_equal(run(16, [1], [9, 5]), want)


def test_memory_is_touched_when_used_and_given_back() -> None:
    shape = Shape(num_kv_heads=4, head_dim=64, rope_dim=64)
    runner = Runner(build_model(shape, random_weights(shape)), 50, num_blocks=256)
    cache = runner.kv_cache
    assert cache.block_bytes == 2 * 4 * 2 * 64 * 16 * 2
    assert cache.resident_bytes() == 0
    runner.logits("a", tokens(40))
    used = cache.resident_bytes()
    assert 3 * cache.block_bytes <= used <= 12 * cache.block_bytes
    cache.release_blocks(np.arange(256, dtype=np.int32))
    assert cache.resident_bytes() == 0
