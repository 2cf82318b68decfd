"""Small folders as the Hugging Face hub keeps them: seeded random weights in safetensors, a real little tokenizer."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.tiny_vocab import bpe_metadata

VOCAB_SIZE = 464  # three rows more than the tokenizer has tokens, as published models have
LENGTH = 48
GOLDEN = Path(__file__).parent.parent / "golden" / "checkpoints.npz"
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": VOCAB_SIZE,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_BASE, "architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    "llama3": {**_BASE, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_scaling": _LLAMA3_ROPE},
    "mistral": {
        **_BASE,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "head_dim": 32,
        "sliding_window": None,
    },
    "qwen2": {
        **_BASE,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "tie_word_embeddings": True,
        "rope_theta": 1e6,
    },
    "qwen3": {**_BASE, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32},
    "gemma3": {
        **_BASE,
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "num_hidden_layers": 6,
        "head_dim": 32,
        "tie_word_embeddings": True,
        "sliding_window": 16,
        "query_pre_attn_scalar": 32,
        "rope_local_base_freq": 10000.0,
        "rope_theta": 1e6,
        "hidden_activation": "gelu_pytorch_tanh",
    },
}

Array = npt.NDArray[np.float32]


def write_checkpoint(folder: Path, name: str, *, num_shards: int = 1, **changes: Any) -> Path:
    """A folder with the model CONFIGS[name]; `changes` go into its config.json, None removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in (CONFIGS[name] | changes).items() if value is not None or key in _BASE}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = random_tensors(CONFIGS[name])
    names = list(tensors)
    for shard in range(num_shards):
        part = {key: tensors[key] for key in names[shard::num_shards]}
        file = "model.safetensors" if num_shards == 1 else f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        write_safetensors(folder / file, part)
    write_tokenizer(folder)
    return folder


def random_tensors(config: Mapping[str, Any]) -> dict[str, Array]:
    """All weights of a configuration, always the same ones."""
    rng = np.random.default_rng(7)
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kind = config["model_type"]

    def matrix(rows: int, cols: int) -> Array:
        return np.asarray(rng.standard_normal((rows, cols)) / np.sqrt(cols), np.float32)

    def norm(size: int) -> Array:
        base = 0.0 if kind == "gemma3_text" else 1.0
        return (base + 0.2 * rng.standard_normal(size)).astype(np.float32)

    found = {
        "model.embed_tokens.weight": matrix(VOCAB_SIZE, hidden) * np.float32(4.0),
        "model.norm.weight": norm(hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for part, rows in (("q", heads), ("k", config["num_key_value_heads"]), ("v", config["num_key_value_heads"])):
            found[f"{prefix}self_attn.{part}_proj.weight"] = matrix(rows * head_dim, hidden)
            if kind == "qwen2":
                found[f"{prefix}self_attn.{part}_proj.bias"] = norm(rows * head_dim)
        found[f"{prefix}self_attn.o_proj.weight"] = matrix(hidden, heads * head_dim)
        if kind in ("qwen3", "gemma3_text"):
            found[f"{prefix}self_attn.q_norm.weight"] = norm(head_dim)
            found[f"{prefix}self_attn.k_norm.weight"] = norm(head_dim)
        found[f"{prefix}mlp.gate_proj.weight"] = matrix(ffn, hidden)
        found[f"{prefix}mlp.up_proj.weight"] = matrix(ffn, hidden)
        found[f"{prefix}mlp.down_proj.weight"] = matrix(hidden, ffn)
        norms = ["input_layernorm", "post_attention_layernorm"]
        if kind == "gemma3_text":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        found |= {f"{prefix}{each}.weight": norm(hidden) for each in norms}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = matrix(VOCAB_SIZE, hidden)
    return found


def random_ids() -> list[int]:
    """LENGTH token ids."""
    return [int(index) for index in np.random.default_rng(11).integers(3, 460, LENGTH)]


def write_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]], dtype: str = "F32") -> None:
    """A file of that format; `dtype` is what the arrays' bytes are said to be."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in tensors.values()))


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json of the byte-level vocabulary that the GGUF tests use."""
    vocabulary = bpe_metadata("qwen2")
    tokens: list[str] = vocabulary["tokenizer.ggml.tokens"]
    described = {
        "added_tokens": [{"id": index, "content": tokens[index], "special": True} for index in range(3)],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _QWEN2_SPLIT}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            ],
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(tokens) if index > 2},
            "merges": [merge.split(" ") for merge in vocabulary["tokenizer.ggml.merges"]],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(described))
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": {"content": "<|im_end|>"},
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
        "chat_template": vocabulary["tokenizer.chat_template"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
