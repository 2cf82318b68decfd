"""LoRA in the core: W x + scale * B (A x), whatever else is in the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tests.native.tiny_model import (
    F32,
    F32_TYPE,
    Q8_0_TYPE,
    Runner,
    Shape,
    Weights,
    build_model,
    matrix_shapes,
    pack_q8_0,
    random_weights,
)

from corral import _native

Pairs = dict[tuple[str, int], tuple[F32, F32]]  # (role, layer) -> A [rank, cols], B [rows, rank]

BIAS = frozenset({"attn_q_bias", "attn_k_bias", "attn_v_bias", "attn_output_bias"})
NORMS = frozenset({"attn_q_norm", "attn_k_norm", "attn_post_norm", "ffn_post_norm"})
FLOAT = Shape(num_heads=6, rope_style="half", extras=BIAS | {"output"})
QUANTISED = FLOAT.with_(weight_type=Q8_0_TYPE, hidden_size=96, intermediate_size=544, vocab_size=70)
SHAPES = {
    "float": FLOAT,
    "odd sizes": Shape(hidden_size=72, intermediate_size=100, vocab_size=51, head_dim=40, rope_dim=20),
    "quantised": QUANTISED,
    "post norms": QUANTISED.with_(extras=NORMS, layer_is_local=(True, False), sliding_window=30, has_local_rope=True),
}
RANKS = (1, 4, 7, 16)
SCALE = 0.5
LENGTH = 70


def random_pairs(shape: Shape, seed: int, rank: int, roles: frozenset[str] | None = None) -> Pairs:
    rng = np.random.default_rng([seed, rank])
    pairs: Pairs = {}
    for layer in range(shape.num_layers):
        for role, (rows, cols) in matrix_shapes(shape).items():
            if roles is None or role in roles:
                a = rng.standard_normal((rank, cols)) * cols**-0.5
                b = rng.standard_normal((rows, rank)) * 1.5 * rank**-0.5
                pairs[role, layer] = (a.astype(np.float32), b.astype(np.float32))
    return pairs


def build_adapter(shape: Shape, pairs: Pairs, scale: float = SCALE) -> _native.Adapter:
    adapter = _native.Adapter(shape.config())
    for (role, layer), (a, b) in pairs.items():
        (rank, cols), rows = a.shape, len(b)
        adapter.add(role, layer, rank, rows, cols, F32_TYPE, a.tobytes(), F32_TYPE, b.tobytes(), scale)
    return adapter


def merged(weights: Weights, pairs: Pairs, scale: float = SCALE) -> Weights:
    added = {key: (scale * b.astype(np.float64) @ a).astype(np.float32) for key, (a, b) in pairs.items()}
    return {key: values + added[key] if key in added else values for key, values in weights.items()}


def prompt(shape: Shape, seed: int, length: int = LENGTH) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, shape.vocab_size, length)]


def alone(
    shape: Shape, ids: list[int], adapter: _native.Adapter | None, *, chunk: int = 512, num_threads: int = 1
) -> F32:
    model = build_model(shape, random_weights(shape), num_threads)
    return Runner(model, shape.vocab_size, max_tokens=512).logits("a", ids, chunk=chunk, adapter=adapter)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", ["float", "odd sizes"])
def test_an_adapter_gives_what_merged_weights_give(name: str, rank: int) -> None:
    shape, ids = SHAPES[name], prompt(SHAPES[name], 1)
    pairs = random_pairs(shape, 2, rank)
    got = alone(shape, ids, build_adapter(shape, pairs))
    want = Runner(build_model(shape, merged(random_weights(shape), pairs)), shape.vocab_size, max_tokens=512).logits(
        "a", ids, chunk=512
    )
    base = alone(shape, ids, None)
    assert np.abs(base - want).max() > 0.2 * np.abs(want).max()  # the adapter matters
    # Keys and values are rounded to f16, where the two sums may fall on different sides.
    np.testing.assert_allclose(got, want, atol=1e-3 * np.abs(want).max())


@pytest.mark.parametrize("role", list(matrix_shapes(FLOAT)))
def test_each_matrix_has_its_own_pair(role: str) -> None:
    pairs = random_pairs(FLOAT, 3, 5, frozenset({role}))
    ids = prompt(FLOAT, 4)
    want = Runner(build_model(FLOAT, merged(random_weights(FLOAT), pairs)), FLOAT.vocab_size, max_tokens=512).logits(
        "a", ids, chunk=512
    )
    np.testing.assert_allclose(alone(FLOAT, ids, build_adapter(FLOAT, pairs)), want, atol=1e-3 * np.abs(want).max())
    assert np.abs(alone(FLOAT, ids, None) - want).max() > 1e-2 * np.abs(want).max()


@pytest.mark.parametrize("name", SHAPES)
def test_a_pair_of_zeros_gives_the_bits_of_the_base(name: str) -> None:
    shape, ids = SHAPES[name], prompt(SHAPES[name], 5)
    zero = {key: (a, np.zeros_like(b)) for key, (a, b) in random_pairs(shape, 6, 8).items()}
    np.testing.assert_array_equal(alone(shape, ids, build_adapter(shape, zero)), alone(shape, ids, None))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("chunk", "num_threads"), [(1, 1), (7, 1), (1, 2), (2, 3), (64, 3), (512, 2)])
def test_cut_and_threads_change_nothing(name: str, chunk: int, num_threads: int) -> None:
    shape, ids = SHAPES[name], prompt(SHAPES[name], 7)
    adapter = build_adapter(shape, random_pairs(shape, 8, 7))
    got = alone(shape, ids, adapter, chunk=chunk, num_threads=num_threads)
    np.testing.assert_array_equal(got, alone(shape, ids, adapter))


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_company_changes_nothing(name: str, num_threads: int) -> None:
    shape = SHAPES[name]
    adapters = [None, *(build_adapter(shape, random_pairs(shape, 20 + rank, rank)) for rank in RANKS[:3])]
    prompts = {f"s{i}": prompt(shape, 30 + i, 5 + 9 * i) for i in range(8)}
    adapter_of = {key: adapters[i % len(adapters)] for i, key in enumerate(prompts)}
    want = {key: alone(shape, ids, adapter_of[key]) for key, ids in prompts.items()}
    model = build_model(shape, random_weights(shape), num_threads)
    runner = Runner(model, shape.vocab_size, num_blocks=128, max_tokens=256)
    rng = np.random.default_rng(3)
    left = dict(prompts)
    got: dict[str, list[F32]] = {key: [] for key in prompts}
    while left:
        parts = {key: ids[: int(rng.integers(1, 20))] for key, ids in left.items() if rng.random() < 0.7}
        if not parts:
            continue
        for key, logits in runner.step(parts, adapter_of).items():
            got[key].append(logits)
            left[key] = left[key][len(parts[key]) :]
        left = {key: ids for key, ids in left.items() if ids}
    for key in prompts:
        np.testing.assert_array_equal(np.concatenate(got[key]), want[key], err_msg=key)


@pytest.mark.parametrize("name", SHAPES)
def test_every_isa_gives_the_same_bits(name: str) -> None:
    info = _native.cpu_info()
    shape, ids = SHAPES[name], prompt(SHAPES[name], 9)
    adapter = build_adapter(shape, random_pairs(shape, 10, 7))
    results = {}
    try:
        for isa in info["isas"]:
            _native.select_isa(isa)
            results[isa] = alone(shape, ids, adapter, chunk=16)
    finally:
        _native.select_isa(info["isa"])
    for isa, logits in results.items():
        np.testing.assert_array_equal(logits, results["scalar"], err_msg=isa)


def test_only_the_rows_that_are_asked_for_go_through_the_last_layer() -> None:
    """The rows of the last layer are numbered anew: each must keep its own adapter."""
    adapters = [build_adapter(QUANTISED, random_pairs(QUANTISED, seed, 4)) for seed in (1, 2)]
    ids = prompt(QUANTISED, 11, 12)
    want = [alone(QUANTISED, ids, adapter) for adapter in (*adapters, None)]
    model = build_model(QUANTISED, random_weights(QUANTISED))
    decoder = _native.Decoder(model, _native.KVCache(model, 3), 36, 3)
    decoder.forward(
        np.array(ids * 3, np.int32),
        np.array([0, 12, 24, 36], np.int32),
        np.zeros(3, np.int32),
        np.array([[0], [1], [2]], np.int32),
        np.array([35, 3, 11, 20], np.int32),
        np.array([0, 1, -1], np.int32),
        adapters,
    )
    np.testing.assert_array_equal(decoder.logits(), np.stack([want[2][11], want[0][3], want[0][11], want[1][8]]))


def test_values_of_other_types_are_read_as_floats() -> None:
    a, b = random_pairs(QUANTISED, 12, 32)["attn_q", 0]
    half, wide = _native.Adapter(QUANTISED.config()), _native.Adapter(QUANTISED.config())
    (rank, cols), rows = a.shape, len(b)
    quantised_b = pack_q8_0(b)
    half.add("attn_q", 0, rank, rows, cols, 1, a.astype(np.float16).tobytes(), Q8_0_TYPE, quantised_b, 1.0)
    blocks = np.frombuffer(quantised_b, np.dtype([("scale", "<f2"), ("q", "i1", 32)]))
    exact_b = (blocks["scale"].astype(np.float32)[:, None] * blocks["q"]).reshape(rows, rank)
    rounded = a.astype(np.float16).astype(np.float32).tobytes()
    wide.add("attn_q", 0, rank, rows, cols, 0, rounded, 0, exact_b.astype(np.float32).tobytes(), 1.0)
    ids = prompt(QUANTISED, 13)
    np.testing.assert_array_equal(alone(QUANTISED, ids, half), alone(QUANTISED, ids, wide))
    assert half.num_bytes == 4 * rank * (rows + cols)


def _add(**changes: object) -> Callable[[], None]:
    values: dict[str, object] = {"role": "attn_q", "layer": 0, "rank": 2, "rows": 64, "cols": 64, "scale": 1.0}
    values |= {"type_a": 0, "a": bytes(512), "type_b": 0, "b": bytes(512)} | changes
    return lambda: _native.Adapter(Shape().config()).add(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (_add(role="token_embd"), "an adapter may change attn_q, attn_k"),
        (_add(layer=2), "layer is 2; it must be from 0 to 1"),
        (_add(layer=-1), "layer is -1"),
        (_add(rank=0, a=b"", b=b""), "rank 0; it must be from 1 to 1024"),
        (_add(rank=1025), "rank 1025"),
        (_add(cols=63), r"A for attn_q of layer 0 has shape \[2, 63\]; it must have \[2, 64\]"),
        (_add(rows=65), r"B for attn_q of layer 0 has shape \[65, 2\]; it must have \[64, 2\]"),
        (_add(a=bytes(511)), "has 511 bytes; its shape and type make 512"),
        (_add(type_b=8), "tensor type 8, which cannot hold"),
        (_add(type_a=999), "tensor type 999"),
        (_add(scale=float("nan")), "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], None], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_an_adapter_is_for_one_config_and_is_not_changed_after_use() -> None:
    shape = Shape()
    runner = Runner(build_model(shape, random_weights(shape)), shape.vocab_size)
    with pytest.raises(ValueError, match=r"adapters\[0\] was made for a model of other sizes"):
        runner.step({"a": [1]}, {"a": build_adapter(QUANTISED, {})})
    pairs = random_pairs(shape, 1, 2)
    adapter = build_adapter(shape, pairs)
    runner.step({"b": [1]}, {"b": adapter})
    a, b = pairs["attn_q", 0]
    with pytest.raises(RuntimeError, match="has been used"):
        adapter.add("attn_q", 0, 2, len(b), a.shape[1], 0, a.tobytes(), 0, b.tobytes(), 1.0)
    with pytest.raises(ValueError, match=r"adapter_ids\[0\] is 1; it must be from -1 to 0"):
        runner.decoder.forward(
            np.zeros(1, np.int32),
            np.array([0, 1], np.int32),
            np.zeros(1, np.int32),
            np.zeros((1, 1), np.int32),
            np.zeros(1, np.int32),
            np.array([1], np.int32),
            [adapter],
        )
