"""Packed matrices leave a model as bytes and enter another one without a copy."""

from __future__ import annotations

import gc
import mmap
import weakref
from pathlib import Path

import numpy as np
import pytest
from tests.native.tiny_model import F32_TYPE, Q8_0_TYPE, Runner, Shape, build_model, matrix_shapes, random_weights

from corral import _native

SHAPE = Shape()
IDS = list(range(1, 20))


def matrices(shape: Shape) -> list[tuple[str, int, int, int]]:
    """(role, layer, rows, cols) of each."""
    layers = [(role, layer, *size) for layer in range(shape.num_layers) for role, size in matrix_shapes(shape).items()]
    return [("token_embd", 0, shape.vocab_size, shape.hidden_size), *layers]


class Buffer(mmap.mmap):
    """Aligned memory whose end can be seen."""


@pytest.mark.parametrize("weight_type", [F32_TYPE, Q8_0_TYPE])
def test_a_model_of_mapped_matrices_gives_the_same_logits(weight_type: int) -> None:
    shape = SHAPE.with_(weight_type=weight_type)
    weights = random_weights(shape)
    packed = build_model(shape, weights)
    mapped = _native.Model(shape.config(), 2)
    buffers = []
    for role, layer, rows, cols in matrices(shape):
        data = packed.packed_tensor(role, layer)
        assert data.readonly
        buffer = Buffer(-1, -(-data.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
        buffer[: data.nbytes] = data
        mapped.map_tensor(role, layer, weight_type, rows, cols, memoryview(buffer)[: data.nbytes])
        assert mapped.packed_tensor(role, layer) == data
        buffers.append(weakref.ref(buffer))
    del buffer, data
    for (role, layer), values in weights.items():
        if values.ndim == 1:
            mapped.add_tensor(role, max(layer, 0), F32_TYPE, 1, values.size, values.tobytes())
    mapped.finish()
    gc.collect()
    assert all(each() is not None for each in buffers), "the model did not keep its memory"
    expected = Runner(packed, shape.vocab_size).logits("a", IDS)
    np.testing.assert_array_equal(Runner(mapped, shape.vocab_size).logits("a", IDS), expected)
    del mapped
    gc.collect()
    assert all(each() is None for each in buffers), "the memory was not let go"


def test_bytes_outlive_their_tensor_and_their_model() -> None:
    weights = random_weights(SHAPE)
    model = build_model(SHAPE, weights)
    data = model.packed_tensor("attn_q", 1)
    before = bytes(data)
    model.add_tensor("attn_q", 1, F32_TYPE, 64, 64, bytes(64 * 64 * 4))
    assert bytes(model.packed_tensor("attn_q", 1)) == bytes(64 * 64 * 4)
    assert bytes(data) == before
    del model
    gc.collect()
    assert bytes(data) == before


def test_a_mapped_tensor_may_be_packed_over(tmp_path: Path) -> None:
    model = build_model(SHAPE, random_weights(SHAPE))
    data = bytes(model.packed_tensor("attn_k", 0))
    (tmp_path / "weights").write_bytes(data)
    with (tmp_path / "weights").open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    model.map_tensor("attn_k", 0, F32_TYPE, 32, 64, view)
    with pytest.raises(BufferError):
        view.close()
    model.add_tensor("attn_k", 0, F32_TYPE, 32, 64, bytes(32 * 64 * 4))
    view.close()


def test_the_layout_has_a_number() -> None:
    assert _native.packed_layout() >= 1
