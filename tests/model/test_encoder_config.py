"""What the readers of BERT and its relatives make of a file, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral.config import EngineConfig
from corral.errors import InsufficientMemory, InvalidConfig, InvalidModelFile, UnsupportedModel
from corral.model.architectures import read_config
from corral.model.config import ModelConfig
from corral.model.gguf import open_gguf
from corral.model.memory import MemoryStatus
from corral.model.plan import Plan, make_plan
from corral.model.tensor_type import TensorType
from corral.model.tensors import NO_LAYER
from tests.support.encoder_writer import ENCODERS, TinyEncoder, write_tiny_encoder
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

SMALL = TinyEncoder(num_layers=2, hidden=64, intermediate=96, context_length=128)
NOMIC = replace(SMALL, family="nomic-bert")


def config_of(folder: Path, model: TinyEncoder | TinyModel) -> ModelConfig:
    path = folder / "tiny.gguf"
    made = write_tiny_encoder(path, model) if isinstance(model, TinyEncoder) else write_tiny_gguf(path, model)
    with open_gguf(made) as file:
        return read_config(file)


def refusal(folder: Path, model: TinyEncoder, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        config_of(folder, model)
    return str(caught.value)


@pytest.mark.parametrize("family", ENCODERS)
def test_what_encoders_share(family: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, replace(SMALL, family=family))
    assert (config.architecture, config.context_length) == (family, 128)
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.num_token_types) == (4, 4, 16, 2)
    assert (config.norm_kind, config.is_post_norm, config.is_causal, config.is_embedding) == (
        "layer",
        True,
        False,
        True,
    )


def test_where_they_differ(tmp_path: Path) -> None:
    bert, nomic = config_of(tmp_path, SMALL), config_of(tmp_path, NOMIC)
    assert (bert.activation, bert.is_gated, bert.num_positions, bert.rope_dim) == ("gelu", False, 128, 0)
    assert (nomic.activation, nomic.is_gated, nomic.num_positions, nomic.rope_dim) == ("silu", True, 0, 16)
    np.testing.assert_allclose(nomic.inv_freq, 1000.0 ** (-np.arange(0, 16, 2) / 16), rtol=1e-6)
    assert (bert.rope_style, nomic.rope_style) == ("half", "half")


def test_norms_belong_to_what_follows_them(tmp_path: Path) -> None:
    roles = config_of(tmp_path, SMALL).tensor_roles
    found = {name: (role.role, role.layer) for name, role in roles.items() if "norm" in name}
    assert found == {
        "token_embd_norm.weight": ("attn_norm", 0),
        "token_embd_norm.bias": ("attn_norm_bias", 0),
        "blk.0.attn_output_norm.weight": ("ffn_norm", 0),
        "blk.0.attn_output_norm.bias": ("ffn_norm_bias", 0),
        "blk.0.layer_output_norm.weight": ("attn_norm", 1),
        "blk.0.layer_output_norm.bias": ("attn_norm_bias", 1),
        "blk.1.attn_output_norm.weight": ("ffn_norm", 1),
        "blk.1.attn_output_norm.bias": ("ffn_norm_bias", 1),
        "blk.1.layer_output_norm.weight": ("output_norm", NO_LAYER),
        "blk.1.layer_output_norm.bias": ("output_norm_bias", NO_LAYER),
    }


def test_a_fused_tensor_has_its_parts_in_order(tmp_path: Path) -> None:
    roles = config_of(tmp_path, replace(SMALL, fused=True)).tensor_roles
    weight, bias = roles["blk.1.attn_qkv.weight"], roles["blk.1.attn_qkv.bias"]
    assert [(part.role, part.layer, part.rows, part.cols) for part in weight.pieces] == [
        (f"attn_{name}", 1, 64, 64) for name in "qkv"
    ]
    assert [(part.role, part.rows, part.cols) for part in bias.pieces] == [
        (f"attn_{name}_bias", 1, 64) for name in "qkv"
    ]
    assert not roles["blk.1.ffn_up.weight"].parts


@pytest.mark.parametrize(("number", "pooling"), [(None, "mean"), (0, "mean"), (1, "mean"), (2, "cls"), (3, "last")])
def test_pooling(number: int | None, pooling: str, tmp_path: Path) -> None:
    assert config_of(tmp_path, replace(SMALL, pooling=number)).pooling == pooling


@pytest.mark.parametrize(("number", "pooling"), [(None, None), (0, None), (1, "mean"), (3, "last")])
def test_pooling_of_a_decoder(number: int | None, pooling: str | None, tmp_path: Path) -> None:
    config = config_of(tmp_path, TinyModel(hidden=64, head_dim=16, extra={"{arch}.pooling_type": number}))
    assert (config.pooling, config.is_embedding, config.is_causal) == (pooling, pooling is not None, True)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
def test_a_decoder_without_causal_attention_embeds(family: str, tmp_path: Path) -> None:
    model = TinyModel(family=family, hidden=64, head_dim=16, extra={"{arch}.attention.causal": False})
    config = config_of(tmp_path, model)
    assert (config.is_causal, config.pooling) == (False, "mean")


def test_embedding_gemma(tmp_path: Path) -> None:
    config = config_of(tmp_path, TinyModel(family="gemma-embedding", hidden=64, head_dim=16, tied=True))
    assert (config.is_causal, config.pooling, config.sliding_window) == (False, "mean", 32)
    assert (config.activation, config.embedding_scale) == ("gelu_tanh", 8.0)


GEMMA = TinyModel(family="gemma-embedding", hidden=64, head_dim=16, tied=True, dense=96)


def test_dense_layers_after_the_pooling(tmp_path: Path) -> None:
    config = config_of(tmp_path, GEMMA)
    assert config.dense_size == 96
    roles = config.tensor_roles
    assert [(roles[f"dense_{i}.weight"].role, roles[f"dense_{i}.weight"].shape) for i in (2, 3)] == [
        ("dense_2", (64, 96)),
        ("dense_3", (96, 64)),
    ]


@pytest.mark.parametrize("name", ["dense_2.weight", "dense_3.weight"])
def test_a_dense_layer_without_the_other_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFile, match=f"tensor '{name}' is missing; it follows the pooling"):
        config_of(tmp_path, replace(GEMMA, skip=frozenset({name})))


def test_dense_layers_of_a_model_that_generates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="it has dense layers after a pooling that it does not name"):
        config_of(tmp_path, replace(GEMMA, family="gemma3"))
    with pytest.raises(UnsupportedModel, match=r"tensor 'dense_2.weight' belongs to a variant"):
        config_of(tmp_path, TinyModel(hidden=64, head_dim=16, dense=96))


@pytest.mark.parametrize(
    "key",
    [
        *("{arch}.context_length", "{arch}.embedding_length", "{arch}.block_count", "{arch}.feed_forward_length"),
        *("{arch}.attention.head_count", "{arch}.attention.layer_norm_epsilon"),
    ],
)
@pytest.mark.parametrize("family", ENCODERS)
def test_a_missing_key_is_named(family: str, key: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, replace(SMALL, family=family, extra={key: None}), InvalidModelFile)
    assert f"{key.format(arch=family)} is missing" in message


BAD_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"{arch}.context_length": 0}, "bert.context_length is 0; it must be from 1"),
    ({"{arch}.context_length": 1 << 31}, "bert.context_length is 2147483648; it must be from 1"),
    (
        {"{arch}.context_length": 100},
        "tensor 'position_embd.weight' has shape [64, 128]; the metadata asks for [64, 100]",
    ),
    ({"{arch}.attention.head_count": 5}, "bert.attention.head_count is 5, which does not divide the width 64"),
    ({"{arch}.attention.head_count_kv": 2}, "bert.attention.head_count_kv differs from attention.head_count"),
    ({"{arch}.attention.layer_norm_epsilon": 0.0}, "bert.attention.layer_norm_epsilon is 0.0"),
    ({"{arch}.attention.causal": 1}, "bert.attention.causal is 1; it must be true or false"),
    ({"{arch}.pooling_type": 5}, "bert.pooling_type is 5; it must be from 0 to 4"),
    ({"{arch}.pooling_type": "mean"}, "bert.pooling_type is 'mean'"),
    ({"tokenizer.ggml.token_type_count": 3}, "tensor 'token_types.weight' has shape [64, 2]"),
    ({"tokenizer.ggml.token_type_count": 0}, "tokenizer.ggml.token_type_count is 0; it must be a whole number from 1"),
    ({"tokenizer.ggml.token_type_count": "2"}, "tokenizer.ggml.token_type_count is '2'"),
]


@pytest.mark.parametrize(("extra", "message"), BAD_KEYS, ids=lambda value: value if isinstance(value, str) else "")
def test_keys_out_of_range_are_named(extra: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, replace(SMALL, extra=extra), InvalidModelFile)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"{arch}.pooling_type": 4}, "it scores pairs of texts (pooling_type 4, a reranker)"),
        ({"{arch}.attention.causal": True}, "its attention is causal"),
        ({"{arch}.expert_count": 8}, "it is a mixture of 8 experts"),
    ],
)
def test_other_models_of_the_family_are_refused(extra: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, replace(SMALL, extra=extra), UnsupportedModel)


@pytest.mark.parametrize(
    "name",
    [
        *("token_embd.weight", "token_embd_norm.weight", "position_embd.weight", "blk.1.attn_q.weight"),
        *("blk.0.attn_output_norm.weight", "blk.1.layer_output_norm.weight", "blk.0.ffn_up.weight"),
    ],
)
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    assert f"tensor {name!r} is missing" in refusal(tmp_path, replace(SMALL, skip=frozenset({name})), InvalidModelFile)


def test_a_missing_fused_tensor_is_asked_for_by_its_parts(tmp_path: Path) -> None:
    model = replace(NOMIC, skip=frozenset({"blk.1.attn_qkv.weight"}))
    assert "tensor 'blk.1.attn_k.weight' is missing" in refusal(tmp_path, model, InvalidModelFile)


def test_biases_and_token_types_may_be_missing(tmp_path: Path) -> None:
    names = {"token_types.weight", "blk.0.attn_q.bias", "blk.1.ffn_up.bias", "blk.0.layer_output_norm.bias"}
    config = config_of(tmp_path, replace(SMALL, skip=frozenset(names)))
    assert config.num_token_types == 0
    assert not names & set(config.tensor_roles)


def plan_of(folder: Path, model: TinyEncoder, free: int, **settings: Any) -> Plan:
    with open_gguf(write_tiny_encoder(folder / "tiny.gguf", model)) as file:
        return make_plan(file, read_config(file), EngineConfig(**settings), MemoryStatus(free, free))


def test_the_plan_has_keys_and_values_for_one_step(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, replace(SMALL, tensor_type=TensorType.F16), 4 << 30, kv_cache_dtype="int8")
    assert plan.embedding is not None
    assert (plan.max_model_len, plan.embedding.max_tokens, plan.kv_dtype) == (128, 512, "f16")
    assert plan.num_blocks == plan.embedding.num_blocks == 128 // 16 + 512 // 16 + 256
    small = plan_of(tmp_path, SMALL, 4 << 30, max_num_batched_tokens=64)
    assert small.embedding is not None
    assert small.embedding.max_tokens == 128  # a whole text must fit


def test_a_context_that_does_not_fit_is_lowered(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, replace(NOMIC, context_length=1 << 30), 400 << 20)
    assert plan.fits
    assert plan.embedding is not None
    assert plan.max_model_len == plan.embedding.max_tokens
    assert 256 < plan.max_model_len <= 1 << 16
    assert plan.notes == (
        f"the context is lowered to {plan.max_model_len:,} tokens: a step with a longer text does not fit",
    )
    with pytest.raises(InsufficientMemory):
        plan_of(tmp_path, replace(NOMIC, context_length=1 << 30), 400 << 20, max_model_len=1 << 16)
    with pytest.raises(InvalidConfig, match="computes a text in one step, of at most 65536 tokens"):
        plan_of(tmp_path, replace(NOMIC, context_length=1 << 30), 1 << 40, max_model_len=1 << 17)


def test_a_machine_too_small_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InsufficientMemory, match="tiny bert does not fit"):
        plan_of(tmp_path, SMALL, 1 << 20)
