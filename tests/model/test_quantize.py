"""Quantised files: each block as llama.cpp writes it, the right type for each tensor, nothing else changed."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from corral import _native
from corral.errors import InvalidConfig, InvalidModelFile, UnsupportedModel
from corral.model.gguf import open_gguf
from corral.model.quantize import KINDS, quantize_file
from corral.model.tensor_type import TensorType
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.native_runner import NativeRunner
from tests.support.regenerate_quantize_golden import GOLDEN, TYPES


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_blocks_are_those_of_llama_cpp(kind: TensorType) -> None:
    golden = np.load(GOLDEN)
    expected = golden[kind.name]
    made = np.frombuffer(_native.quantize(int(kind), golden["weights"]), np.uint8).reshape(expected.shape)
    # llama.cpp's compiler may fuse a multiplication and an addition: a block in thousands rounds the other way.
    assert (made != expected).any(axis=1).mean() < 0.002


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_extreme_rows_stay_finite_and_near(kind: TensorType) -> None:
    rng = np.random.default_rng(1)
    rows = np.zeros((6, 512), np.float32)
    rows[1] = 1e-30
    rows[2] = -3.0
    rows[3, 5] = 1000.0
    rows[4] = np.where(rng.random(512) < 0.5, 1.0, -1.0)
    rows[5] = rng.standard_normal(512) * 1e-4
    data = np.frombuffer(_native.quantize(int(kind), rows), np.uint8).reshape(6, -1)
    back = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(int(kind)))
    assert np.isfinite(back).all()
    assert np.abs(back[0]).max() == 0.0
    assert np.abs(back - rows).max(axis=1)[2:].max() <= 0.2 * 1000.0
    assert np.abs(back[4] - rows[4]).max() < 0.15
    assert np.corrcoef(back[5], rows[5])[0, 1] > 0.98


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 256"):
        _native.quantize(int(TensorType.Q4_K), np.zeros((1, 288), np.float32))
    with pytest.raises(ValueError, match="cannot be written"):
        _native.quantize(int(TensorType.F16), np.zeros((1, 256), np.float32))
    with pytest.raises(ValueError, match="NaN or infinity"):
        _native.quantize(int(TensorType.Q8_0), np.full((1, 32), np.nan, np.float32))
    with pytest.raises(ValueError, match="float32"):
        _native.quantize(int(TensorType.Q8_0), np.zeros((1, 32), np.float64))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = TinyModel(tensor_type=TensorType.F32, num_layers=9)
    return write_tiny_gguf(tmp_path_factory.mktemp("source") / "tiny.gguf", model)


# Root mean square error, as a share of that of normally distributed weights.
MAX_ERROR = {"Q4_0": 0.095, "Q4_K": 0.08, "Q5_K": 0.04, "Q6_K": 0.02, "Q8_0": 0.006}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_stay_near_and_the_file_answers(source: Path, tmp_path: Path, kind: str) -> None:
    quantize_file(source, tmp_path / "q.gguf", kind.lower())
    with open_gguf(source) as before, open_gguf(tmp_path / "q.gguf") as after:
        for name, info in after.tensors.items():
            old = np.frombuffer(before.data(before.tensors[name]), np.float32)
            if info.type.is_float:
                assert bytes(after.data(info)) == old.tobytes()
                continue
            blocks = np.frombuffer(after.data(info), np.uint8).reshape(-1, info.type.block_bytes)
            new = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(info.type))).ravel()
            assert np.sqrt(np.square(new - old).mean() / np.square(old).mean()) < MAX_ERROR[info.type.name], name
    assert np.isfinite(NativeRunner(tmp_path / "q.gguf").all_logits(list(range(5, 37)))).all()


def test_each_tensor_gets_the_type_of_the_mixture(source: Path, tmp_path: Path) -> None:
    quantize_file(source, tmp_path / "q.gguf", "Q4_K_M")
    with open_gguf(source) as before, open_gguf(tmp_path / "q.gguf") as after:
        types = {name: info.type.name for name, info in after.tensors.items()}
        assert list(after.tensors) == list(before.tensors)
        for key, value in before.metadata.items():
            if key not in ("general.file_type", "general.quantization_version", "tokenizer.ggml.tokens"):
                assert str(after.metadata[key]) == str(value) or "StringTable" in str(value)
        assert after.raw_value("tokenizer.ggml.tokens") == before.raw_value("tokenizer.ggml.tokens")
        assert after.metadata["general.file_type"] == 15
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == "Q4_K"
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types["blk.2.attn_q.weight"] == "Q4_K"
    # The first and last eighths of the layers and every third between.
    assert [types[f"blk.{layer}.ffn_down.weight"] for layer in range(9)] == [
        *("Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q6_K", "Q6_K"),
    ]


def test_narrow_rows_fall_back(tmp_path: Path) -> None:
    model = TinyModel(tensor_type=TensorType.F16, hidden=96, intermediate=96, head_dim=24)
    path = write_tiny_gguf(tmp_path / "narrow.gguf", model)
    quantize_file(path, tmp_path / "q.gguf", "Q4_K_M")
    with open_gguf(tmp_path / "q.gguf") as made:
        assert made.tensors["blk.0.attn_q.weight"].type == TensorType.Q5_0
        assert made.tensors["output.weight"].type == TensorType.Q8_0


def test_what_is_quantised_already_is_refused(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "q8.gguf", TinyModel(tensor_type=TensorType.Q8_0))
    with pytest.raises(UnsupportedModel, match="quantised already"):
        quantize_file(path, tmp_path / "q.gguf", "Q4_0")


def test_an_unknown_kind_lists_those_there_are(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"'Q3_XXL'.*Q4_0, Q8_0, Q4_K_M, Q5_K_M, Q6_K"):
        quantize_file(source, tmp_path / "q.gguf", "Q3_XXL")


def test_weights_that_are_no_numbers_are_named(source: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "nan.gguf"
    data = bytearray(source.read_bytes())
    with open_gguf(source) as before:
        offset = before.tensors["blk.1.ffn_up.weight"].offset
    data[offset : offset + 4] = np.float32(np.nan).tobytes()
    damaged.write_bytes(data)
    with pytest.raises(InvalidModelFile, match=r"'blk.1.ffn_up.weight'.*NaN or infinity"):
        quantize_file(damaged, tmp_path / "q.gguf", "Q8_0")


def test_progress_counts_every_byte(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    quantize_file(source, tmp_path / "q.gguf", "Q8_0", lambda *numbers: seen.append(numbers))
    assert seen[-1][0] == seen[-1][1] > 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
