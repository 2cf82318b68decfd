"""Adapter files: what is read of a sound one, and what every other one is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from corral.errors import CorralError, InvalidModelFile, ModelNotFound, UnsupportedModel
from corral.model.adapter import LoadedAdapter, open_adapter
from corral.model.architectures import read_config
from corral.model.config import ModelConfig
from corral.model.gguf import open_gguf
from corral.model.tensor_type import TensorType
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.random_adapters import TinyAdapter, write_tiny_adapter
from tests.support.random_blocks import quantize

BASE = TinyModel(hidden=64, intermediate=96, num_heads=2, num_kv_heads=1, head_dim=32)
ADAPTER = TinyAdapter(base=BASE)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return config_of(BASE, tmp_path_factory.mktemp("base"))


def config_of(model: TinyModel, folder: Path) -> ModelConfig:
    with open_gguf(write_tiny_gguf(folder / "base.gguf", model)) as file:
        return read_config(file)


def load(path: Path, config: ModelConfig) -> LoadedAdapter:
    with open_adapter(path, config) as file:
        loaded = file.load()
        assert loaded.num_bytes == file.num_bytes
    return loaded


def write_tensors(path: Path, tensors: dict[str, np.ndarray], **metadata: str) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in ({"general.type": "adapter", "adapter.type": "lora"} | metadata).items():
        writer.add_string(key, value)
    for name, data in tensors.items():
        if data.dtype == np.uint8:
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_its_memory_is_that_of_f32(config: ModelConfig, tmp_path: Path) -> None:
    loaded = load(write_tiny_adapter(tmp_path / "a.gguf", replace(ADAPTER, roles=("attn_q",), dtype="f2")), config)
    assert loaded.num_bytes == BASE.num_layers * 4 * ADAPTER.rank * (64 + 64)


def test_the_digest_is_that_of_the_content(config: ModelConfig, tmp_path: Path) -> None:
    def digest(adapter: TinyAdapter) -> str:
        return load(write_tiny_adapter(tmp_path / "a.gguf", adapter), config).digest

    same = digest(ADAPTER)
    assert digest(replace(ADAPTER, extra=(("general.name", "another name"),))) == same
    others = [
        replace(ADAPTER, seed=1),
        replace(ADAPTER, alpha=2.0),
        replace(ADAPTER, rank=3),
        replace(ADAPTER, alpha=None),
    ]
    assert len({same, *map(digest, others)}) == 5


def test_quantised_pairs_are_read_too(config: ModelConfig, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((32, 64), dtype=np.float32), rng.standard_normal((64, 32), dtype=np.float32)
    name = "blk.0.attn_q.weight"
    packed = {f"{name}.lora_a": quantize(a, TensorType.Q8_0), f"{name}.lora_b": quantize(b, TensorType.Q8_0)}
    assert load(write_tensors(tmp_path / "a.gguf", packed), config).num_bytes == 4 * 32 * 128


def test_a_pair_of_rank_1_may_have_lost_a_dimension(config: ModelConfig, tmp_path: Path) -> None:
    pair = {"lora_a": np.ones(64, np.float32), "lora_b": np.ones((64, 1), np.float32)}
    path = write_tensors(tmp_path / "a.gguf", {f"blk.0.attn_q.weight.{half}": data for half, data in pair.items()})
    assert load(path, config).num_bytes == 4 * 128


def pair_of(base: str, shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> Callable[[Path], Path]:
    tensors = {f"{base}.lora_a": np.zeros(shape_a, np.float32), f"{base}.lora_b": np.zeros(shape_b, np.float32)}
    return lambda path: write_tensors(path, tensors)


def tiny(**changes: object) -> Callable[[Path], Path]:
    return lambda path: write_tiny_adapter(path, replace(ADAPTER, **changes))  # type: ignore[arg-type]


def with_keys(**keys: object) -> Callable[[Path], Path]:
    return tiny(extra=tuple((name.replace("__", "."), value) for name, value in keys.items()))


@pytest.mark.parametrize(
    ("write", "error", "words"),
    [
        (lambda path: write_tiny_gguf(path, BASE), InvalidModelFile, "general.type is missing"),
        (with_keys(general__type="model"), UnsupportedModel, "is no adapter: its general.type is 'model'"),
        (with_keys(general__type=7), InvalidModelFile, "general.type is missing or not a string"),
        (with_keys(adapter__type="control_vector"), UnsupportedModel, "of type 'control_vector' are not supported"),
        (with_keys(adapter__type=None), InvalidModelFile, "adapter.type is missing"),
        (with_keys(adapter__lora__alpha="8"), InvalidModelFile, "alpha must be a finite number"),
        (with_keys(adapter__lora__alpha=float("nan")), InvalidModelFile, "alpha must be a finite number"),
        (with_keys(adapter__alora__invocation_tokens=[1, 2]), UnsupportedModel, "begin to work at certain tokens"),
        (tiny(base=replace(BASE, family="qwen3")), UnsupportedModel, "for the family 'qwen3'; 'tiny llama' is of the"),
        (
            tiny(base=replace(BASE, num_layers=3)),
            UnsupportedModel,
            r"'blk\.2\.\w+\.weight', which 'tiny llama' has not",
        ),
        (tiny(skip=frozenset({"blk.1.ffn_up.weight.lora_b"})), InvalidModelFile, "has no 'blk.1.ffn_up.weight.lora_b'"),
        (tiny(roles=()), InvalidModelFile, "has no tensors"),
        (pair_of("token_embd.weight", (2, 96), (64, 2)), UnsupportedModel, "changes 'token_embd.weight'; only the"),
        (pair_of("output.weight", (2, 64), (96, 2)), UnsupportedModel, "changes 'output.weight'; only the layers'"),
        (pair_of("blk.0.attn_norm.weight", (2, 64), (1, 2)), UnsupportedModel, "Merge the adapter"),
        (pair_of("blk.0.attn_q.weight", (2, 65), (64, 2)), InvalidModelFile, r"\[65, 2\]; .* has 64 inputs"),
        (pair_of("blk.0.attn_q.weight", (2, 64), (65, 2)), InvalidModelFile, r"64 outputs .* ask for \[2, 64\]"),
        (pair_of("blk.0.attn_q.weight", (2, 64), (64, 3)), InvalidModelFile, r"has shape \[3, 64\]"),
        (pair_of("blk.0.attn_q.weight", (2, 2, 64), (64, 2)), InvalidModelFile, r"has shape \[64, 2, 2\]"),
        (pair_of("blk.0.attn_q.weight", (1025, 64), (64, 1025)), InvalidModelFile, "rank 1025; at most 1024"),
        (
            lambda path: write_tensors(path, {"blk.0.attn_norm.weight": np.ones(64, np.float32)}),
            UnsupportedModel,
            "adapters that replace tensors whole",
        ),
    ],
)
def test_what_is_refused(
    config: ModelConfig, tmp_path: Path, write: Callable[[Path], Path], error: type[CorralError], words: str
) -> None:
    path = write(tmp_path / "a.gguf")
    with pytest.raises(error, match=words) as caught:
        open_adapter(path, config)
    assert str(path) in str(caught.value)


def test_files_that_are_none(config: ModelConfig, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        open_adapter(tmp_path / "none.gguf", config)
    whole = write_tiny_adapter(tmp_path / "whole.gguf", ADAPTER).read_bytes()
    for size in (0, 10, 200, len(whole) // 2, len(whole) - 40):
        torn = tmp_path / f"{size}.gguf"
        torn.write_bytes(whole[:size])
        with pytest.raises(InvalidModelFile):
            open_adapter(torn, config)
