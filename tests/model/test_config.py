"""The four families' metadata: what is read, and what is refused with the key's name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral.errors import InvalidModelFile, UnsupportedModel
from corral.model.architectures import ARCHITECTURES, read_config
from corral.model.config import ModelConfig
from corral.model.gguf import open_gguf
from corral.model.tensor_type import TensorType
from tests.support.encoder_writer import ENCODERS
from tests.support.gguf_writer import FAMILIES, TinyModel, write_tiny_gguf
from tests.support.models import model_path

SMALL = TinyModel(hidden=64, intermediate=96, num_heads=4, num_kv_heads=2, head_dim=16, tensor_type=TensorType.F16)


def config_of(folder: Path, model: TinyModel) -> ModelConfig:
    with open_gguf(write_tiny_gguf(folder / "tiny.gguf", model)) as file:
        return read_config(file)


def refusal(folder: Path, model: TinyModel, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        config_of(folder, model)
    return str(caught.value)


def test_the_table_of_families() -> None:
    assert tuple(ARCHITECTURES) == (*FAMILIES, "gemma-embedding", *ENCODERS)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_and_roles(family: str, tmp_path: Path) -> None:
    model = replace(SMALL, family=family)
    config = config_of(tmp_path, model)
    assert (config.architecture, config.name) == (family, f"tiny {family}")
    assert (config.num_layers, config.hidden_size, config.intermediate_size) == (2, 64, 96)
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.rope_dim) == (4, 2, 16, 16)
    assert (config.vocab_size, config.context_length) == (model.vocab_size, 2048)
    assert config.rope_style == ("interleaved" if family == "llama" else "half")
    assert config.activation == ("gelu_tanh" if family == "gemma3" else "silu")
    assert config.attn_scale == pytest.approx(0.25)
    assert config.kv_bytes_per_token("f16") == 2 * 2 * 16 * 2 * 2
    assert config.kv_bytes_per_token("int8") == 2 * 2 * 2 * (16 + 2)
    assert not config.is_tied
    layer_roles = {role.role for role in config.tensor_roles.values() if role.layer == 1}
    norms = {"attn_q_norm", "attn_k_norm"}
    extra = {"qwen2": {"attn_q_bias", "attn_k_bias", "attn_v_bias"}, "qwen3": norms}
    extra["gemma3"] = norms | {"attn_post_norm", "ffn_post_norm"}
    assert len(layer_roles) == 9 + len(extra.get(family, ()))
    assert extra.get(family, set()) <= layer_roles
    fields = config.decoder_fields()
    assert fields["layer_is_local"] == ([True, False] if family == "gemma3" else [False, False])
    assert "architecture" not in fields
    assert fields["inv_freq"].dtype == np.float32


def test_gemma3_window_scale_and_two_ropes(tmp_path: Path) -> None:
    model = replace(SMALL, family="gemma3", num_layers=7)
    linear = {"{arch}.rope.scaling.type": "linear", "{arch}.rope.scaling.factor": 8.0}
    config = config_of(tmp_path, replace(model, extra={"{arch}.attention.sliding_window_pattern": None, **linear}))
    assert config.layer_is_local == (True,) * 5 + (False, True)
    assert config.sliding_window == 32
    assert config.embedding_scale == 8.0
    assert config.local_inv_freq is not None
    assert config.local_inv_freq[1] == pytest.approx(10_000.0 ** (-2 / 16))
    assert config.inv_freq[1] == pytest.approx(1_000_000.0 ** (-2 / 16) / 8)
    pattern = {"{arch}.attention.sliding_window_pattern": [True, False] * 3 + [True]}
    assert config_of(tmp_path, replace(model, extra=pattern)).layer_is_local == (True, False) * 3 + (True,)
    none = config_of(tmp_path, replace(model, extra={"{arch}.attention.sliding_window": None}))
    assert (none.sliding_window, none.layer_is_local, none.local_inv_freq) == (0, (False,) * 7, None)


def test_gemma3_27b_scales_queries_by_width_over_heads(tmp_path: Path) -> None:
    model = replace(SMALL, family="gemma3", num_layers=62, hidden=48, num_heads=2, num_kv_heads=1)
    assert config_of(tmp_path, model).attn_scale == pytest.approx(1 / math.sqrt(24))


def test_llama3_rope_freqs_divide_the_angles(tmp_path: Path) -> None:
    plain = config_of(tmp_path, SMALL)
    stretched = config_of(tmp_path, replace(SMALL, rope_freqs=True))
    np.testing.assert_allclose(stretched.inv_freq * np.geomspace(1, 8, 8), plain.inv_freq, rtol=1e-6)
    assert "rope_freqs.weight" not in stretched.tensor_roles


def test_mistrals_window_is_not_applied_as_in_llama_cpp(tmp_path: Path) -> None:
    config = config_of(tmp_path, replace(SMALL, extra={"{arch}.attention.sliding_window": 64}))
    assert config.sliding_window == 0


def test_uniform_arrays_tied_heads_and_missing_names(tmp_path: Path) -> None:
    extra = {"{arch}.attention.head_count_kv": [2, 2], "{arch}.feed_forward_length": [96, 96], "general.name": None}
    config = config_of(tmp_path, replace(SMALL, tied=True, extra=extra))
    assert (config.num_kv_heads, config.intermediate_size, config.is_tied, config.name) == (2, 96, True, "tiny")


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"{arch}.block_count": None}, "llama.block_count is missing"),
    ({"{arch}.block_count": 0}, "llama.block_count is 0; it must be from 1 to 1024"),
    ({"{arch}.block_count": 3}, "tensor 'blk.2.attn_k.weight' is missing"),
    ({"{arch}.block_count": "2"}, "llama.block_count is '2'; it must be a whole number"),
    ({"{arch}.block_count": 2.0}, "llama.block_count is 2.0; it must be a whole number"),
    ({"{arch}.block_count": True}, "llama.block_count is True; it must be a whole number"),
    ({"{arch}.block_count": [2, 2]}, "llama.block_count is an array of 2; it must be a whole number"),
    ({"{arch}.embedding_length": None}, "llama.embedding_length is missing"),
    (
        {"{arch}.embedding_length": 128, "{arch}.rope.dimension_count": None},
        "'token_embd.weight' has shape [64, 460]; the metadata asks for [128, 460]",
    ),
    ({"{arch}.embedding_length": (1 << 32) - 1}, "it must be from 1 to 262144"),
    ({"{arch}.embedding_length": 63}, "llama.attention.head_count is 4, which does not divide the width 63"),
    ({"{arch}.feed_forward_length": 97}, "'blk.0.ffn_gate.weight' has shape [64, 96]; the metadata asks for [64, 97]"),
    ({"{arch}.feed_forward_length": [96]}, "llama.feed_forward_length has 1 values; 2 layers need one each"),
    ({"{arch}.attention.head_count": 0}, "llama.attention.head_count is 0"),
    ({"{arch}.attention.head_count": None}, "llama.attention.head_count is missing"),
    ({"{arch}.attention.head_count_kv": 0}, "llama.attention.head_count_kv is 0"),
    ({"{arch}.attention.head_count_kv": 3}, "is 3, which does not divide the 4 heads"),
    ({"{arch}.attention.head_count_kv": 4}, "'blk.0.attn_k.weight' has shape [64, 32]; the metadata asks for [64, 64]"),
    ({"{arch}.attention.head_count_kv": ["2", "2"]}, "llama.attention.head_count_kv is '2'"),
    ({"{arch}.context_length": 0}, "llama.context_length is 0"),
    ({"{arch}.context_length": None}, "llama.context_length is missing"),
    ({"{arch}.attention.layer_norm_rms_epsilon": None}, "llama.attention.layer_norm_rms_epsilon is missing"),
    ({"{arch}.attention.layer_norm_rms_epsilon": 0.0}, "it must be above 0 and at most 1"),
    ({"{arch}.attention.layer_norm_rms_epsilon": -1e-5}, "it must be above 0 and at most 1"),
    ({"{arch}.attention.layer_norm_rms_epsilon": math.nan}, "epsilon is nan"),
    ({"{arch}.attention.layer_norm_rms_epsilon": "1"}, "epsilon is '1'; it must be a number"),
    ({"{arch}.rope.freq_base": 0.0}, "llama.rope.freq_base is 0.0"),
    ({"{arch}.rope.freq_base": math.inf}, "llama.rope.freq_base is inf"),
    ({"{arch}.rope.dimension_count": 15}, "llama.rope.dimension_count is 15; it must be even"),
    ({"{arch}.rope.dimension_count": 8}, "is 8; this family rotates the whole head of 16"),
    ({"{arch}.rope.scaling.factor": math.nan}, "llama.rope.scaling.factor is nan"),
    ({"{arch}.rope.scaling.factor": -4.0}, "llama.rope.scaling.factor is -4.0"),
    ({"{arch}.rope.scaling.type": 3}, "llama.rope.scaling.type is 3; it must be a string"),
    ({"{arch}.attention.causal": 1}, "llama.attention.causal is 1; it must be true or false"),
    ({"tokenizer.ggml.tokens": ["a", "b"]}, "tokenizer.ggml.tokens has 2 tokens, but 'token_embd.weight' has"),
]


@pytest.mark.parametrize(("extra", "fault"), INVALID, ids=[fault for _, fault in INVALID])
def test_metadata_out_of_range_is_refused(extra: dict[str, Any], fault: str, tmp_path: Path) -> None:
    model = TinyVocabKept(**{**vars(SMALL), "extra": extra})
    path = write_tiny_gguf(tmp_path / "tiny.gguf", model)
    with open_gguf(path) as file:
        with pytest.raises(InvalidModelFile) as caught:
            read_config(file)
        assert fault in str(caught.value)
        key = next(iter(extra)).format(arch="llama")
        if f"{key} is missing" not in fault and key in fault:
            assert caught.value.offset == file.key_offsets[key]


class TinyVocabKept(TinyModel):
    """The tensors keep the vocabulary of 460, whatever the metadata says."""

    @property
    def vocab_size(self) -> int:
        return 460


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"{arch}.expert_count": 8}, "it is a mixture of 8 experts"),
    ({"{arch}.pooling_type": 4}, "it scores pairs of texts (pooling_type 4, a reranker)"),
    ({"{arch}.attention.head_count_kv": [2, 1]}, "llama.attention.head_count_kv differs from layer to layer ([1, 2])"),
    ({"{arch}.attention.value_length": 8}, "its keys have 16 dimensions and its values 8"),
    ({"{arch}.rope.scaling.type": "longrope"}, "rope scaling 'longrope' is not supported; the known ones are none"),
    (
        {"{arch}.rope.scaling.type": "yarn", "{arch}.rope.scaling.yarn_ext_factor": 0.5},
        "llama.rope.scaling.yarn_ext_factor is 0.5; only 1 is supported",
    ),
]


@pytest.mark.parametrize(("extra", "fault"), UNSUPPORTED, ids=[fault for _, fault in UNSUPPORTED])
def test_variants_are_refused_by_name(extra: dict[str, Any], fault: str, tmp_path: Path) -> None:
    assert fault in refusal(tmp_path, replace(SMALL, extra=extra), UnsupportedModel)


def test_unknown_families_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    fault = refusal(tmp_path, replace(SMALL, extra={"general.architecture": "mamba"}), UnsupportedModel)
    assert "the family 'mamba' is not supported; known are llama, qwen2, qwen3, gemma3" in fault


@pytest.mark.parametrize("name", ["token_embd.weight", "output_norm.weight", "blk.1.ffn_norm.weight"])
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    fault = refusal(tmp_path, replace(SMALL, skip=frozenset({name})), InvalidModelFile)
    assert f"tensor {name!r} is missing" in fault


def test_tensors_of_another_family_are_refused(tmp_path: Path) -> None:
    model = replace(SMALL, family="qwen2", rope_freqs=True)
    assert "'rope_freqs.weight' is not known in the family 'qwen2'" in refusal(tmp_path, model, UnsupportedModel)
    yarn = {"{arch}.rope.scaling.type": "yarn", "{arch}.rope.scaling.factor": 2.0}
    assert "'yarn' is not known" in refusal(tmp_path, replace(SMALL, family="gemma3", extra=yarn), UnsupportedModel)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm2-135m", ("llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, True)),
        ("gemma3-270m", ("gemma3", 18, 640, 2048, 4, 1, 256, 262144, 32768, True)),
        ("qwen2.5-coder-0.5b", ("qwen2", 24, 896, 4864, 14, 2, 64, 151936, 32768, False)),
    ],
)
def test_real_models(name: str, expected: tuple[Any, ...]) -> None:
    with open_gguf(model_path(name)) as file:
        c = read_config(file)
        assert set(c.tensor_roles) == set(file.tensors)
    sizes = (c.num_layers, c.hidden_size, c.intermediate_size, c.num_heads, c.num_kv_heads, c.head_dim, c.vocab_size)
    assert (c.architecture, *sizes, c.context_length, c.is_tied) == expected
    if name == "gemma3-270m":
        assert c.sliding_window == 512
        assert [layer for layer, local in enumerate(c.layer_is_local) if not local] == [5, 11, 17]
