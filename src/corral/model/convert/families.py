"""What each family calls its tensors and settings at Hugging Face, and in GGUF.

Facts: transformers' model files for the names, the GGUF specification for the keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corral.model import gguf_writer as write
from corral.model.convert.settings import Settings

_LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_GEMMA_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_MODEL_NAMES = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")
# Models that see keep their decoder below one of these.
_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")
_NOT_TEXT = re.compile(r"(^|\.)(vision_tower|vision_model|multi_modal_projector|visual)\.")
_DERIVED = re.compile(r"rotary_emb\.inv_freq$")

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    Args:
        architecture: `general.architecture`.
        layer_names: transformers' name within a layer -> GGUF's.
        permutes_heads: rope rotates neighbours in GGUF where transformers rotates halves (llama).
        norm_offset: what GGUF adds to norm weights.
        values: the keys that only this family has.
    """

    architecture: str
    layer_names: Mapping[str, str]
    permutes_heads: bool = False
    norm_offset: float = 0.0
    values: Callable[[Settings], dict[str, bytes]] = lambda _: {}

    def gguf_name(self, name: str) -> str | None:
        """The tensor's name in GGUF; "" for what is not needed, None for what is not known."""
        if _NOT_TEXT.search(name) or _DERIVED.search(name):
            return ""
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                break
        if (match := _LAYER.fullmatch(name)) is not None:
            inner = self.layer_names.get(match[2])
            return None if inner is None else f"blk.{match[1]}.{inner}.{match[3]}"
        outer = _MODEL_NAMES.get(name.removesuffix(".weight"))
        return None if outer is None else f"{outer}.weight"


def common_values(settings: Settings, family: Family) -> dict[str, bytes]:
    """The keys that every family has."""
    arch = family.architecture
    heads = settings.integer("num_attention_heads")
    head_dim = settings.integer("head_dim", max(1, settings.integer("hidden_size") // heads))
    return {
        f"{arch}.context_length": write.uint32(settings.integer("max_position_embeddings")),
        f"{arch}.embedding_length": write.uint32(settings.integer("hidden_size")),
        f"{arch}.block_count": write.uint32(settings.integer("num_hidden_layers")),
        f"{arch}.feed_forward_length": write.uint32(settings.integer("intermediate_size")),
        f"{arch}.attention.head_count": write.uint32(heads),
        f"{arch}.attention.head_count_kv": write.uint32(settings.integer("num_key_value_heads", heads)),
        f"{arch}.attention.layer_norm_rms_epsilon": write.float32(settings.number("rms_norm_eps", 1e-6)),
        f"{arch}.attention.key_length": write.uint32(head_dim),
        f"{arch}.attention.value_length": write.uint32(head_dim),
        f"{arch}.rope.dimension_count": write.uint32(head_dim),
        **_rope_values(settings, arch),
        **family.values(settings),
    }


def _rope_values(settings: Settings, arch: str) -> dict[str, bytes]:
    rope = settings.rope()
    found = {f"{arch}.rope.freq_base": write.float32(settings.number_of("rope_theta", rope.get("rope_theta"), 1e4))}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("default", "llama3", None):
        return found
    if kind not in ("linear", "yarn"):
        settings.refuse(f"rope scaling {kind!r:.40} is not known; default, linear, yarn and llama3 are")
    found[f"{arch}.rope.scaling.type"] = write.string(kind)
    found[f"{arch}.rope.scaling.factor"] = write.float32(settings.number_of("rope factor", rope.get("factor")))
    if kind == "yarn":
        original = rope.get("original_max_position_embeddings", settings.values.get("max_position_embeddings"))
        found[f"{arch}.rope.scaling.original_context_length"] = write.uint32(
            int(settings.number_of("original_max_position_embeddings", original))
        )
    return found


def llama3_factors(settings: Settings) -> Array | None:
    """f32[head_dim / 2] by which Llama 3.1 divides its angles; None for models without. Source: its published code."""
    rope = settings.rope()
    if rope.get("rope_type", rope.get("type")) != "llama3":
        return None
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "rope_theta")
    factor, low, high, original, theta = (settings.number_of(name, rope.get(name)) for name in names)
    head_dim = settings.integer("head_dim", settings.integer("hidden_size") // settings.integer("num_attention_heads"))
    turns = original / (2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim))  # within the old context
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 1 keeps its angle, 0 is stretched in full
    return (1.0 / ((1.0 - share) / factor + share)).astype(np.float32)


def permute_heads(weights: npt.NDArray[np.generic], num_heads: int) -> npt.NDArray[np.generic]:
    """Rows of a query or key matrix, or values of its bias, so that halves of a head become neighbours."""
    shape = weights.shape
    halves = weights.reshape(num_heads, 2, shape[0] // num_heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


def _gemma3_values(settings: Settings) -> dict[str, bytes]:
    values = settings.values
    head_dim = settings.integer("head_dim", 256)
    scale = settings.number("query_pre_attn_scalar", head_dim)
    is_27b = settings.integer("num_hidden_layers") == 62
    expected = settings.integer("hidden_size") / settings.integer("num_attention_heads") if is_27b else head_dim
    if scale != expected:
        settings.refuse(f"query_pre_attn_scalar is {scale:g}; GGUF files of this family mean {expected:g}")
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if values.get(key) is not None:
            settings.refuse(f"{key} is {values[key]!r:.20}; Gemma 3 has none")
    local = settings.rope("sliding_attention") if "rope_parameters" in values else {}
    base = local.get("rope_theta", values.get("rope_local_base_freq", 1e4))
    if base != 1e4:
        settings.refuse(f"the rope base of local layers is {base!r:.20}; GGUF files of this family mean 10000")
    found = {"gemma3.attention.sliding_window": write.uint32(settings.integer("sliding_window", 4096))}
    types = values.get("layer_types")
    if isinstance(types, list):
        is_local = [kind == "sliding_attention" for kind in types]
        if is_local != [layer % 6 < 5 for layer in range(len(types))]:
            found["gemma3.attention.sliding_window_pattern"] = write.boolean_array(is_local)
    elif (period := values.get("sliding_window_pattern", 6)) != 6:
        found["gemma3.attention.sliding_window_pattern"] = write.uint32(int(settings.number_of("pattern", period)))
    return found


_LLAMA = Family("llama", _LAYER_NAMES, permutes_heads=True)
_GEMMA3 = Family("gemma3", {**_LAYER_NAMES, **_GEMMA_NORMS}, norm_offset=1.0, values=_gemma3_values)
FAMILIES = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": Family("qwen2", _LAYER_NAMES),
    "Qwen3ForCausalLM": Family("qwen3", _LAYER_NAMES),
    "Gemma3ForCausalLM": _GEMMA3,
    "Gemma3ForConditionalGeneration": _GEMMA3,
}


def family_of(settings: Settings) -> Family:
    """The family of a config.json.

    Raises:
        UnsupportedModel: none that is known; lists those that are.
    """
    names = settings.values.get("architectures")
    name = names[0] if isinstance(names, list) and names else settings.values.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        settings.refuse(f"models of the kind {name!r:.60} are not converted; {', '.join(FAMILIES)} are")
    return FAMILIES[name]
