"""Encoders and hidden states against NumPy: norms in the residual stream, both sides seen, learned positions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tests.native.tiny_model import F32, Runner, Shape, build_model, random_weights, reference_hidden

from corral._native import Decoder, KVCache

BERT = Shape(
    num_kv_heads=4,
    activation="gelu",
    rope_dim=0,
    norm_kind="layer",
    is_post_norm=True,
    is_causal=False,
    is_gated=False,
    num_positions=600,
    num_token_types=2,
    extras=frozenset(
        {
            *("attn_norm_bias", "ffn_norm_bias", "output_norm_bias", "ffn_up_bias", "ffn_down_bias"),
            *("attn_q_bias", "attn_k_bias", "attn_v_bias", "attn_output_bias"),
        }
    ),
)
SHAPES = {
    "bert": BERT,
    "nomic-bert": BERT.with_(
        activation="silu",
        rope_style="half",
        rope_dim=16,
        is_gated=True,
        num_positions=0,
        extras=frozenset({"attn_norm_bias", "ffn_norm_bias", "output_norm_bias"}),
    ),
    "without biases": BERT.with_(extras=frozenset()),
    "causal post-norm": BERT.with_(is_causal=True),
    "layer norms before": BERT.with_(is_post_norm=False),
    "gemma-embedding": Shape(
        rope_style="half",
        activation="gelu_tanh",
        is_causal=False,
        sliding_window=24,
        layer_is_local=(True, False),
        has_local_rope=True,
        extras=frozenset({"attn_q_norm", "attn_k_norm", "attn_post_norm", "ffn_post_norm"}),
    ),
    "a decoder": Shape(),
}


def ids_of(length: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(length).integers(0, 50, length)]


def embed(decoder: Decoder, texts: list[list[int]], *, first_block: int = 0) -> list[F32]:
    """The hidden states of all tokens of each text."""
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    width = max(-(-len(text) // 16) for text in texts)
    tables = np.zeros((len(texts), width), np.int32)
    block = first_block
    for at, text in enumerate(texts):
        count = -(-len(text) // 16)
        tables[at, :count] = range(block, block + count)
        block += count
    tokens = np.array([token for text in texts for token in text], np.int32)
    starts = np.zeros(len(texts), np.int32)
    hidden = decoder.embed(tokens, offsets, starts, tables, np.arange(len(tokens), dtype=np.int32))
    return [hidden[begin:end] for begin, end in itertools.pairwise(offsets)]


def decoder_of(shape: Shape, *, num_threads: int = 1, dtype: str = "f16") -> Decoder:
    model = build_model(shape, random_weights(shape), num_threads)
    return Decoder(model, KVCache(model, 128, dtype), 1024, 64)


@pytest.mark.parametrize("length", [1, 2, 40, 300, 580])
@pytest.mark.parametrize("name", SHAPES)
def test_hidden_states_equal_those_of_numpy(name: str, length: int) -> None:
    shape = SHAPES[name]
    [got] = embed(decoder_of(shape), [ids_of(length)])
    want = reference_hidden(shape, random_weights(shape), ids_of(length))
    np.testing.assert_allclose(got, want, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("window", [1, 2, 3, 16, 255, 400, 2000])
def test_a_token_sees_half_a_window_to_each_side(window: int) -> None:
    shape = BERT.with_(num_layers=1, layer_is_local=(True,), sliding_window=window)
    [got] = embed(decoder_of(shape), [ids_of(580)])
    want = reference_hidden(shape, random_weights(shape), ids_of(580))
    np.testing.assert_allclose(got, want, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("name", ["bert", "nomic-bert", "gemma-embedding"])
def test_company_and_threads_leave_no_trace(name: str) -> None:
    texts = [ids_of(length) for length in (17, 1, 300, 40, 2, 64)]
    alone = [embed(decoder_of(SHAPES[name]), [text])[0] for text in texts]
    for num_threads in (1, 2, 3):
        together = embed(decoder_of(SHAPES[name], num_threads=num_threads), texts, first_block=7)
        for got, want in zip(together, alone, strict=True):
            np.testing.assert_array_equal(got, want)


def test_hidden_states_of_a_decoder_do_not_depend_on_the_cut_of_the_prompt() -> None:
    decoder = decoder_of(Shape())
    [whole] = embed(decoder, [ids_of(40)])
    pieces = [
        decoder.embed(
            np.array(ids_of(40)[start:stop], np.int32),
            np.array([0, stop - start], np.int32),
            np.array([start], np.int32),
            np.array([[9, 4, 7]], np.int32),
            np.arange(stop - start, dtype=np.int32),
        )
        for start, stop in ((0, 1), (1, 23), (23, 40))
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_step_of_hidden_states_leaves_no_logits_and_disturbs_none() -> None:
    shape = Shape()
    model = build_model(shape, random_weights(shape))
    runner = Runner(model, shape.vocab_size)
    want = runner.logits("a", ids_of(30))
    own = Decoder(model, KVCache(model, 8, "f16"), 64, 4)
    embed(own, [ids_of(20)])
    assert own.logits().shape == (0, shape.vocab_size)
    np.testing.assert_array_equal(Runner(model, shape.vocab_size).logits("a", ids_of(30)), want)


def test_only_the_wanted_rows_come_in_the_order_asked() -> None:
    decoder = decoder_of(BERT)
    [every] = embed(decoder, [ids_of(9)])

    def rows(wanted: list[int]) -> F32:
        return decoder.embed(
            np.array(ids_of(9), np.int32),
            np.array([0, 9], np.int32),
            np.zeros(1, np.int32),
            np.zeros((1, 1), np.int32),
            np.array(wanted, np.int32),
        )

    np.testing.assert_array_equal(rows([3, 0, 8]), every[[3, 0, 8]])
    assert rows([]).shape == (0, BERT.hidden_size)


def test_positions_beyond_the_model_and_later_parts_are_refused() -> None:
    decoder = decoder_of(BERT)
    with pytest.raises(ValueError, match="reaches position 600; the model has 600 positions"):
        embed(decoder, [ids_of(601)])
    with pytest.raises(ValueError, match="begins at position 16; without causal attention all rows"):
        decoder.embed(
            np.zeros(1, np.int32),
            np.array([0, 1], np.int32),
            np.array([16], np.int32),
            np.zeros((1, 2), np.int32),
            np.zeros(1, np.int32),
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_kind": "batch"}, 'norm_kind is "batch"; it must be "rms" or "layer"'),
        ({"activation": "relu"}, '"gelu_tanh" or "gelu"'),
        ({"num_positions": -1}, "num_positions is -1"),
        ({"num_token_types": 1 << 40}, "num_token_types is"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BERT.with_(**change).config()


def test_missing_tensors_of_an_encoder_are_named() -> None:
    weights = random_weights(BERT)
    del weights["position_embd", -1], weights["token_types", -1]
    with pytest.raises(ValueError, match="the model lacks position_embd, token_types"):
        build_model(BERT, weights)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_dense_layers_equal_those_of_numpy(num_threads: int) -> None:
    shape = BERT.with_(dense_size=100)
    weights = random_weights(shape)
    decoder = decoder_of(shape, num_threads=num_threads)
    rows = np.random.default_rng(3).standard_normal((5, shape.hidden_size)).astype(np.float32)
    got = decoder.project(rows)
    want = rows @ weights["dense_2", -1].T @ weights["dense_3", -1].T
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    for row, together in zip(rows, got, strict=True):
        np.testing.assert_array_equal(decoder.project(row[np.newaxis])[0], together)


def test_dense_layers_that_are_not_there_or_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="the model has no dense layers"):
        decoder_of(BERT).project(np.zeros((1, 64), np.float32))
    decoder = decoder_of(BERT.with_(dense_size=100))
    with pytest.raises(ValueError, match="the number of values in a row is 63"):
        decoder.project(np.zeros((1, 63), np.float32))
    with pytest.raises(ValueError, match="the number of rows is 0"):
        decoder.project(np.zeros((0, 64), np.float32))
    with pytest.raises(ValueError, match="rows must be an array of float32"):
        decoder.project(np.zeros((1, 64), np.float64))
