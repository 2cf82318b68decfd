"""What BERT and its relatives share: encoders whose norms stand in the residual stream.

To the decoder each layer begins with the norm that ended the one before, so that BERT is a pre-norm model whose norms
replace the residual stream: token_embd_norm is the first layer's attn_norm, layer_output_norm that of the next layer
or, after the last, output_norm. Every token sees its whole sequence.
Facts: the BERT paper and its released code; Nomic Embed's report; llama.cpp for names and for keys that are missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from corral.model.architectures.dense import display_name, read_pooling, read_widths, refuse_experts
from corral.model.config import ModelConfig
from corral.model.metadata import MetadataReader
from corral.model.rope import MAX_CONTEXT
from corral.model.tensors import NO_LAYER, TensorRole, Widths, check_roles

MAX_TOKEN_TYPES = 1 << 10
# Role -> name in the file, where the decoder's own names do not tell.
_LAYER_NAMES = {
    "ffn_norm": "blk.{}.attn_output_norm.weight",
    "ffn_norm_bias": "blk.{}.attn_output_norm.bias",
    "attn_qkv_bias": "blk.{}.attn_qkv.bias",
    "attn_q_bias": "blk.{}.attn_q.bias",
    "attn_k_bias": "blk.{}.attn_k.bias",
    "attn_v_bias": "blk.{}.attn_v.bias",
    "attn_output_bias": "blk.{}.attn_output.bias",
    "ffn_up_bias": "blk.{}.ffn_up.bias",
    "ffn_down_bias": "blk.{}.ffn_down.bias",
}


def read_encoder_config(
    reader: MetadataReader, *, required_roles: Iterable[str], optional_roles: Iterable[str], has_positions: bool
) -> ModelConfig:
    """An encoder with layer norms and exact GELU without a gate, as the metadata says; without rope.

    Args:
        required_roles, optional_roles: the tensors of each layer, beside the norms; attn_qkv may stand for all three.
        has_positions: positions are learned, one vector for each.

    Raises:
        InvalidModelFile: a key is missing or out of range, or a tensor is missing or of the wrong shape.
        UnsupportedModel: a reranker, a mixture of experts, causal attention, or a tensor that is not known.
    """
    refuse_experts(reader)
    if reader.boolean("attention.causal", default=False):
        reader.refuse("its attention is causal, which is not known in this family")
    context_length = reader.integer("context_length", 1, MAX_CONTEXT)
    widths, num_heads = read_widths(reader)
    if widths.key != widths.query:
        reader.fail("attention.head_count_kv", "differs from attention.head_count, which this family does not know")
    num_types = _read_num_types(reader)
    known, needed = _model_tensors(widths, context_length if has_positions else 0, num_types)
    required_roles = frozenset(required_roles)
    for layer in range(widths.num_layers):
        for name, role in _layer_tensors(reader, layer, widths, required_roles | frozenset(optional_roles)).items():
            known[name] = role
            if role.role in required_roles or role.role == "attn_qkv" or name.endswith("_norm.weight"):
                needed.append(name)
    return ModelConfig(
        architecture=reader.architecture,
        name=display_name(reader.gguf),
        context_length=context_length,
        tensor_roles=check_roles(reader.gguf, known, needed),
        num_layers=widths.num_layers,
        hidden_size=widths.hidden,
        intermediate_size=widths.intermediate,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=widths.head,
        vocab_size=widths.vocab,
        norm_eps=reader.number("attention.layer_norm_epsilon", 0.0, 1.0, exclusive_low=True),
        rope_style="half",
        rope_dim=0,
        inv_freq=np.empty(0, dtype=np.float32),
        attn_scale=1.0 / math.sqrt(widths.head),
        activation="gelu",
        norm_kind="layer",
        is_post_norm=True,
        is_causal=False,
        is_gated=False,
        num_positions=context_length if has_positions else 0,
        num_token_types=num_types,
        pooling=read_pooling(reader, is_causal=False),
    )


def _read_num_types(reader: MetadataReader) -> int:
    """Rows of token_types.weight; a file without this tensor has none."""
    if "token_types.weight" not in reader.gguf.tensors:
        return 0
    key = "tokenizer.ggml.token_type_count"
    count = reader.gguf.metadata.get(key, 2)  # BERT's own number
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_TOKEN_TYPES:
        reader.fail_key(key, f"is {count!r:.80}; it must be a whole number from 1 to {MAX_TOKEN_TYPES}")
    return count


def _model_tensors(widths: Widths, num_positions: int, num_types: int) -> tuple[dict[str, TensorRole], list[str]]:
    """The tensors outside the layers by name, and those that must be there."""
    known = {
        "token_embd.weight": TensorRole("token_embd", NO_LAYER, widths.vocab, widths.hidden),
        "token_embd_norm.weight": TensorRole("attn_norm", 0, 1, widths.hidden),
        "token_embd_norm.bias": TensorRole("attn_norm_bias", 0, 1, widths.hidden),
    }
    needed = ["token_embd.weight", "token_embd_norm.weight"]
    if num_positions:
        known["position_embd.weight"] = TensorRole("position_embd", NO_LAYER, num_positions, widths.hidden)
        needed.append("position_embd.weight")
    if num_types:
        known["token_types.weight"] = TensorRole("token_types", NO_LAYER, num_types, widths.hidden)
    return known, needed


def _layer_tensors(
    reader: MetadataReader, layer: int, widths: Widths, roles: Iterable[str]
) -> Mapping[str, TensorRole]:
    """The tensors of a layer by name; the fused attn_qkv in place of its parts if the file has it."""
    roles = set(roles) | {"ffn_norm", "ffn_norm_bias"}
    if f"blk.{layer}.attn_qkv.weight" in reader.gguf.tensors:
        for suffix in ("", "_bias"):
            parts = {f"attn_{part}{suffix}" for part in "qkv"}
            if roles & parts:
                roles = roles - parts | {"attn_qkv" + suffix}
    tensors = {}
    for role in sorted(roles):
        rows, cols = widths.of_role(role)
        name = _LAYER_NAMES.get(role, f"blk.{{}}.{role}.weight").format(layer)
        tensors[name] = TensorRole(role, layer, rows, cols, _parts_of(role, layer, widths))
    is_last = layer == widths.num_layers - 1
    norm, norm_layer = ("output_norm", NO_LAYER) if is_last else ("attn_norm", layer + 1)
    tensors[f"blk.{layer}.layer_output_norm.weight"] = TensorRole(norm, norm_layer, 1, widths.hidden)
    tensors[f"blk.{layer}.layer_output_norm.bias"] = TensorRole(norm + "_bias", norm_layer, 1, widths.hidden)
    return tensors


def _parts_of(role: str, layer: int, widths: Widths) -> tuple[TensorRole, ...]:
    if not role.startswith("attn_qkv"):
        return ()
    suffix = role.removeprefix("attn_qkv")
    names = [f"attn_{part}{suffix}" for part in "qkv"]
    return tuple(TensorRole(name, layer, *widths.of_role(name)) for name in names)
