"""Every wrong argument is refused with the numbers, and nothing changes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from tests.native.tiny_model import Runner, Shape, build_model, random_weights

from corral import _native

SHAPE = Shape()
I32 = np.int32


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner(build_model(SHAPE, random_weights(SHAPE)), SHAPE.vocab_size, num_blocks=8, max_tokens=20)


def batch(**changes: Any) -> dict[str, Any]:
    """Two sequences: 3 tokens from position 0, and 1 token at position 16."""
    return {
        "token_ids": np.array([1, 2, 3, 4], I32),
        "seq_offsets": np.array([0, 3, 4], I32),
        "start_positions": np.array([0, 16], I32),
        "block_tables": np.array([[0, 1], [2, 3]], I32),
        "logit_rows": np.array([2, 3], I32),
    } | changes


BAD_BATCHES: list[tuple[dict[str, Any], str]] = [
    ({"token_ids": np.array([1, 2, 3, 50], I32)}, r"token_ids\[3\] is 50; it must be from 0 to 49"),
    ({"token_ids": np.array([-1, 2, 3, 4], I32)}, r"token_ids\[0\] is -1"),
    ({"token_ids": np.array([1, 2, 3, 4], np.int64)}, "token_ids must be an array of int32"),
    ({"token_ids": np.array([[1, 2, 3, 4]], I32)}, "token_ids has 2 dimensions; it must have 1"),
    ({"token_ids": np.arange(8, dtype=I32)[::2]}, "token_ids is not C-contiguous"),
    ({"token_ids": np.zeros(0, I32)}, "the number of token_ids is 0; it must be from 1 to 20"),
    ({"token_ids": np.zeros(21, I32)}, "the number of token_ids is 21"),
    ({"seq_offsets": np.array([0, 3], I32)}, "seq_offsets has 2 values; it must have 3"),
    ({"seq_offsets": np.array([1, 3, 4], I32)}, "seq_offsets begins at 1, not 0"),
    ({"seq_offsets": np.array([0, 5, 4], I32)}, "seq_offsets falls from 5 to 4 at 2"),
    ({"seq_offsets": np.array([0, 3, 5], I32)}, "seq_offsets ends at 5; there are 4 values"),
    ({"start_positions": np.array([0, -1], I32)}, r"start_positions\[1\] is -1"),
    ({"start_positions": np.array([0, 2**31 - 1], I32)}, r"start_positions\[1\] is 2147483647"),
    ({"start_positions": np.array([0, 32], I32)}, "sequence 1 reaches position 32, which needs 3 blocks; .* has 2"),
    ({"block_tables": np.array([[0, 1], [2, 8]], I32)}, r"block_tables\[1, 1\] is 8; it must be from 0 to 7"),
    ({"block_tables": np.array([[-1, 1], [2, 3]], I32)}, r"block_tables\[0, 0\] is -1"),
    ({"block_tables": np.array([[0, 1]], I32)}, "the number of block_tables is 1; it must be from 2 to 2"),
    ({"block_tables": np.array([[0, 1], [2, 3]], I32).T}, "block_tables is not C-contiguous"),
    ({"logit_rows": np.array([4], I32)}, r"logit_rows\[0\] is 4; it must be from 0 to 3"),
    ({"logit_rows": np.array([-1], I32)}, r"logit_rows\[0\] is -1"),
    ({"logit_rows": np.zeros(21, I32)}, "the number of logit_rows is 21"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_BATCHES)
def test_forward_refuses(runner: Runner, changes: dict[str, Any], message: str) -> None:
    runner.decoder.forward(**batch())
    before = runner.decoder.logits()
    with pytest.raises(ValueError, match=message):
        runner.decoder.forward(**batch(**changes))
    np.testing.assert_array_equal(runner.decoder.logits(), before)


def test_forward_takes_no_lists(runner: Runner) -> None:
    with pytest.raises(TypeError):
        runner.decoder.forward(**batch(token_ids=[1, 2, 3, 4]))


def test_unused_entries_of_a_table_are_not_looked_at(runner: Runner) -> None:
    runner.decoder.forward(**batch(block_tables=np.array([[0, -1], [2, 3]], I32)))


BAD_CONFIGS = [
    ({"num_layers": 0}, "num_layers is 0; it must be from 1"),
    ({"num_heads": 5}, "num_heads is 5; it must be a multiple of num_kv_heads, 2"),
    ({"rope_dim": 17}, "rope_dim is 17; it must be from 0 to 16"),
    ({"rope_dim": 5}, "rope_dim is 5; it must be even"),
    ({"activation": "relu"}, 'activation is "relu"; it must be "silu", "gelu_tanh" or "gelu"'),
    ({"rope_style": "neox"}, 'rope_style is "neox"; it must be "interleaved" or "half"'),
    ({"layer_is_local": (True,)}, "layer_is_local has 1 values; num_layers is 2"),
    ({"norm_eps": float("nan")}, "norm_eps is nan; it must be a finite number"),
    ({"attn_scale": 0.0}, "attn_scale is 0.000000; it must be a finite number above 0"),
    ({"sliding_window": -1}, "sliding_window is -1"),
    ({"head_dim": 1 << 40}, "head_dim is 1099511627776; it must be from 2 to 1024"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CONFIGS)
def test_config_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SHAPE.with_(**changes).config()


BAD_TENSORS = [
    (("ffn_mid", 0, 0, 64, 64, 16384), 'role is "ffn_mid"; it must be one of token_embd, output'),
    (("attn_q", 2, 0, 64, 64, 16384), "layer is 2 for attn_q; it must be from 0 to 1"),
    (("attn_q", -1, 0, 64, 64, 16384), "layer is -1"),
    (("attn_q", 0, 0, 64, 32, 8192), r"attn_q of layer 0 has shape \[64, 32\]; the config asks for \[64, 64\]"),
    (("attn_q", 0, 99, 64, 64, 16384), "has tensor type 99, which is not known"),
    (("attn_q", 0, -1, 64, 64, 16384), "type is -1"),
    (("attn_q", 0, 12, 64, 64, 2304), "rows of 64 values; tensor type 12 needs a multiple of 256"),
    (("attn_q", 0, 0, 64, 64, 16383), "has 16383 bytes; its shape and type make 16384"),
    (("attn_norm", 0, 8, 1, 64, 68), "has tensor type 8; a vector must be F32, F16 or BF16"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_TENSORS)
def test_add_tensor_refuses(arguments: tuple[str, int, int, int, int, int], message: str) -> None:
    model = _native.Model(SHAPE.config(), 1)
    role, layer, type_id, rows, cols, num_bytes = arguments
    with pytest.raises(ValueError, match=message):
        model.add_tensor(role, layer, type_id, rows, cols, bytes(num_bytes))
    assert model.packed_bytes == 0


def aligned(num_bytes: int, offset: int = 0) -> memoryview:
    """Bytes that begin `offset` after a multiple of 64."""
    array = np.zeros(num_bytes + 128, np.uint8)
    begin = -array.ctypes.data % 64 + offset
    return array[begin : begin + num_bytes].data


BAD_PACKED = [
    (("ffn_mid", 0, 0, 64, 64), 16384, 0, 'role is "ffn_mid"; it must be one of token_embd, output'),
    (("attn_q", 2, 0, 64, 64), 16384, 0, "layer is 2 for attn_q; it must be from 0 to 1"),
    (("attn_q", 0, 0, 64, 32), 8192, 0, r"attn_q of layer 0 has shape \[64, 32\]; the config asks for \[64, 64\]"),
    (("attn_q", 0, 99, 64, 64), 16384, 0, "has tensor type 99, which is not known"),
    (("attn_q", 0, -1, 64, 64), 16384, 0, "type is -1"),
    (("attn_q", 0, 0, 64, 64), 16383, 0, "has 16383 bytes; its shape and type make 16384"),
    (("attn_q", 0, 0, 64, 64), 16448, 0, "has 16448 bytes; its shape and type make 16384"),
    (("attn_q", 0, 0, 64, 64), 0, 0, "has 0 bytes"),
    (("attn_q", 0, 0, 64, 64), 16384, 32, "attn_q of layer 0 begins 32 bytes after a multiple of 64"),
    (("token_embd", 0, 0, 50, 64), 50 * 64 * 4, 0, "its shape and type make 16384"),  # rows are padded to tiles
    (("attn_norm", 0, 0, 1, 64), 256, 0, "attn_norm of layer 0 is a vector; only matrices are mapped"),
]


@pytest.mark.parametrize(("arguments", "num_bytes", "offset", "message"), BAD_PACKED)
def test_map_tensor_refuses(
    arguments: tuple[str, int, int, int, int], num_bytes: int, offset: int, message: str
) -> None:
    model = _native.Model(SHAPE.config(), 1)
    with pytest.raises(ValueError, match=message):
        model.map_tensor(*arguments, aligned(num_bytes, offset))
    with pytest.raises(TypeError):
        model.map_tensor(*arguments, 7)  # type: ignore[arg-type]
    assert model.packed_bytes == 0


def test_packed_tensor_refuses() -> None:
    model = _native.Model(SHAPE.config(), 1)
    with pytest.raises(ValueError, match="attn_q of layer 1 has not been added"):
        model.packed_tensor("attn_q", 1)
    with pytest.raises(ValueError, match="attn_norm of layer 0 is a vector; only matrices are packed"):
        model.packed_tensor("attn_norm", 0)
    with pytest.raises(ValueError, match="layer is 7 for attn_q"):
        model.packed_tensor("attn_q", 7)


def test_finish_names_what_is_missing() -> None:
    model = _native.Model(SHAPE.config(), 1)
    model.add_tensor("token_embd", 0, 0, 50, 64, bytes(50 * 64 * 4))
    with pytest.raises(ValueError, match=r"the model lacks output_norm, attn_q of layer 0, .*ffn_norm of layer 1"):
        model.finish()
    with pytest.raises(ValueError, match="the model is not finished"):
        _native.Decoder(model, _native.KVCache(model, 4), 8, 4)


def test_other_limits(runner: Runner) -> None:
    with pytest.raises(ValueError, match="num_threads is 0; it must be from 1 to 1024"):
        _native.Model(SHAPE.config(), 0)
    with pytest.raises(ValueError, match="num_blocks is 0"):
        _native.KVCache(runner.model, 0)
    with pytest.raises(ValueError, match='dtype is "fp8"; it must be "f16" or "int8"'):
        _native.KVCache(runner.model, 4, "fp8")
    with pytest.raises(ValueError, match="max_seqs is 9; it must be from 1 to 8"):
        _native.Decoder(runner.model, runner.kv_cache, 8, 9)
    with pytest.raises(ValueError, match="kv_cache was made for another model"):
        _native.Decoder(build_model(SHAPE, random_weights(SHAPE)), runner.kv_cache, 8, 8)
    with pytest.raises(ValueError, match=r"ids\[1\] is 8; it must be from 0 to 7"):
        runner.kv_cache.release_blocks(np.array([0, 8], I32))
    with pytest.raises(ValueError, match="dst has 1 values; it must have 2"):
        runner.kv_cache.copy_blocks(np.array([0, 1], I32), np.array([2], I32))
    with pytest.raises(ValueError, match='isa is "mmx"; this machine has scalar'):
        _native.select_isa("mmx")


def test_vectors_may_be_half_floats() -> None:
    weights = random_weights(SHAPE)
    norm = weights["output_norm", -1].astype(np.float16)
    weights["output_norm", -1] = norm.astype(np.float32)
    want = Runner(build_model(SHAPE, weights), 50).logits("a", [1, 2, 3])
    model = build_model(SHAPE, weights)
    model.add_tensor("output_norm", 0, 1, 1, 64, norm.tobytes())
    np.testing.assert_array_equal(Runner(model, 50).logits("a", [1, 2, 3]), want)


def test_one_call_at_a_time() -> None:
    """Calls from two threads: each gives the right answer or says that the model is in use."""
    ids = list(range(40))
    runner = Runner(build_model(SHAPE, random_weights(SHAPE), 2), 50, max_tokens=64)
    arguments = batch(
        token_ids=np.array(ids, I32),
        seq_offsets=np.array([0, 40], I32),
        start_positions=np.array([0], I32),
        block_tables=np.array([[1, 2, 3]], I32),
        logit_rows=np.array([39], I32),
    )
    runner.decoder.forward(**arguments)
    want = runner.decoder.logits()
    refused: list[str] = []

    def call() -> None:
        for _ in range(50):
            try:
                runner.decoder.forward(**arguments)
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(runner.decoder.logits(), want)
    assert all("in use by a call on another thread" in message for message in refused)


def test_parts_keep_what_they_stand_on() -> None:
    shape = SHAPE

    def decoder() -> _native.Decoder:
        model = build_model(shape, random_weights(shape))
        return _native.Decoder(model, _native.KVCache(model, 8), 20, 4)

    first, second = decoder(), decoder()
    for each in (first, second):
        each.forward(**batch())
    np.testing.assert_array_equal(first.logits(), second.logits())
