"""Every rope scaling as a table of angles, against formulas written out here."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corral.errors import InvalidModelFile
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.metadata import MetadataReader
from corral.model.rope import RopeScaling, make_rope_table, read_freq_factors, read_rope_scaling
from corral.model.tensor_type import TensorType
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

SMALL = TinyModel(hidden=64, intermediate=64, num_heads=4, num_kv_heads=2, head_dim=16, tensor_type=TensorType.F16)


def test_plain_angles() -> None:
    table = make_rope_table(8, 10_000.0, RopeScaling())
    np.testing.assert_allclose(table.inv_freq, [1, 1e-1, 1e-2, 1e-3], rtol=1e-6)
    assert table.inv_freq.dtype == np.float32
    assert table.attn_factor == 1.0


def test_linear_scaling_divides_every_angle() -> None:
    table = make_rope_table(8, 10_000.0, RopeScaling("linear", 4.0, 1.5))
    np.testing.assert_allclose(table.inv_freq, [0.25, 0.025, 0.0025, 0.00025], rtol=1e-6)
    assert table.attn_factor == 1.5


def test_freq_factors_divide_their_own_angle() -> None:
    table = make_rope_table(4, 100.0, RopeScaling(), np.array([2.0, 8.0], np.float32))
    np.testing.assert_allclose(table.inv_freq, [0.5, 0.1 / 8], rtol=1e-6)


def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones() -> None:
    dim, base, factor, original = 64, 10_000.0, 4.0, 2048
    plain = make_rope_table(dim, base, RopeScaling()).inv_freq.astype(np.float64)
    table = make_rope_table(dim, base, RopeScaling("yarn", factor, 1.0, original))
    turns = original * plain / (2 * math.pi)
    kept, stretched = table.inv_freq / plain, plain / table.inv_freq
    np.testing.assert_allclose(kept[turns > 40], 1.0, rtol=1e-6)
    np.testing.assert_allclose(stretched[turns < 0.8], factor, rtol=1e-6)
    assert (np.diff(kept) <= 1e-6).all()
    assert table.attn_factor == pytest.approx(1 + 0.1 * math.log(4))


def test_yarn_that_does_not_stretch_is_plain() -> None:
    table = make_rope_table(16, 10_000.0, RopeScaling("yarn", 1.0, 1.0, 512))
    np.testing.assert_array_equal(table.inv_freq, make_rope_table(16, 10_000.0, RopeScaling()).inv_freq)
    assert table.attn_factor == 1.0


def test_reads_the_scaling_keys(tmp_path: Path) -> None:
    extra = {
        "{arch}.rope.scaling.type": "yarn",
        "{arch}.rope.scaling.factor": 8.0,
        "{arch}.rope.scaling.original_context_length": 256,
        "{arch}.rope.scaling.attn_factor": 0.5,
        "{arch}.rope.scaling.yarn_beta_fast": 16.0,
    }
    with open_gguf(write_tiny_gguf(tmp_path / "yarn.gguf", replace(SMALL, extra=extra))) as file:
        scaling = read_rope_scaling(MetadataReader(file, "llama"), 2048)
        assert scaling == RopeScaling("yarn", 8.0, 0.5, 256, 16.0, 1.0)
        assert read_config(file).rope_attn_factor == pytest.approx(0.5 * (1 + 0.1 * math.log(8)))
    old_key = replace(SMALL, extra={"{arch}.rope.scale_linear": 2.0})
    with open_gguf(write_tiny_gguf(tmp_path / "old.gguf", old_key)) as file:
        assert read_rope_scaling(MetadataReader(file, "llama"), 2048) == RopeScaling("linear", 2.0)
    none = replace(SMALL, extra={"{arch}.rope.scaling.type": "none", "{arch}.rope.scaling.factor": 2.0})
    with open_gguf(write_tiny_gguf(tmp_path / "none.gguf", none)) as file:
        assert read_rope_scaling(MetadataReader(file, "llama"), 2048) == RopeScaling("none")


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_freq_factors_that_cannot_divide_are_refused(factor: float, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "factors.gguf", replace(SMALL, rope_freqs=True))
    with open_gguf(path) as file:
        info = file.tensors["rope_freqs.weight"]
    data = bytearray(path.read_bytes())
    data[info.offset + 4 : info.offset + 8] = np.float32(factor).tobytes()
    path.write_bytes(data)
    with open_gguf(path) as file, pytest.raises(InvalidModelFile, match="not above 0") as caught:
        read_config(file)
    assert caught.value.offset == info.offset


def test_freq_factors_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    with open_gguf(write_tiny_gguf(tmp_path / "factors.gguf", replace(SMALL, rope_freqs=True))) as file:
        factors = read_freq_factors(file, 16)
        assert factors is not None
        np.testing.assert_allclose(factors, np.geomspace(1, 8, 8), rtol=1e-6)
        with pytest.raises(InvalidModelFile, match=r"F32 of shape \[8\]; F32 of shape \[16\] is needed"):
            read_freq_factors(file, 32)
