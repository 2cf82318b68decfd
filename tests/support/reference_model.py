"""The truth that logits are compared with: all four families in NumPy, f32, straight from a GGUF file.

Shares no code with the product but the list of tensor types: it reads the file with gguf-py, dequantises with gguf-py,
and computes the whole sequence at once, without a cache.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


class ReferenceModel:
    """A dense decoder. `logits(ids)` gives f32[T, vocab], one row for each position."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.keys: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self.family: str = self.keys["general.architecture"]
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.num_layers = int(self.key("block_count"))
        self.hidden = int(self.key("embedding_length"))
        self.num_heads = int(self.key("attention.head_count"))
        self.num_kv_heads = int(self.key("attention.head_count_kv", self.num_heads))
        self.head_dim = int(self.key("attention.key_length", self.hidden // self.num_heads))
        self.eps = np.float32(self.key("attention.layer_norm_rms_epsilon"))
        self.is_gemma = self.family == "gemma3"

    def key(self, name: str, default: Any = None) -> Any:
        return self.keys.get(f"{self.family}.{name}", default)

    def weight(self, name: str) -> F32:
        """The tensor as f32: [rows, cols] or [n]."""
        tensor = self.tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return np.asarray(values, dtype=np.float32)

    def logits(self, token_ids: list[int]) -> F32:
        """f32[T, vocab] of a prompt of T tokens at positions [0, T)."""
        embedding = self.weight("token_embd.weight")
        x = embedding[token_ids]
        if self.is_gemma:
            x = x * np.float32(math.sqrt(self.hidden))
        for layer in range(self.num_layers):
            x = self.layer(x, layer)
        x = self.norm(x, "output_norm.weight")
        head = self.weight("output.weight") if "output.weight" in self.tensors else embedding
        logits = x @ head.T
        cap = self.key("final_logit_softcapping", 0.0)
        return logits if not cap else np.float32(cap) * np.tanh(logits / np.float32(cap))

    def layer(self, x: F32, layer: int) -> F32:
        """f32[T, hidden] -> f32[T, hidden]."""
        block = f"blk.{layer}."
        attention = self.attention(self.norm(x, block + "attn_norm.weight"), layer)
        if self.is_gemma:
            attention = self.norm(attention, block + "post_attention_norm.weight")
        x = x + attention
        hidden = self.norm(x, block + "ffn_norm.weight")
        gate = self.linear(hidden, block + "ffn_gate")
        gate = gelu_tanh(gate) if self.is_gemma else silu(gate)
        hidden = self.linear(gate * self.linear(hidden, block + "ffn_up"), block + "ffn_down")
        if self.is_gemma:
            hidden = self.norm(hidden, block + "post_ffw_norm.weight")
        return x + hidden

    def attention(self, x: F32, layer: int) -> F32:
        """Causal grouped-query attention over f32[T, hidden]."""
        block, length = f"blk.{layer}.", len(x)
        q = self.linear(x, block + "attn_q").reshape(length, self.num_heads, self.head_dim)
        k = self.linear(x, block + "attn_k").reshape(length, self.num_kv_heads, self.head_dim)
        v = self.linear(x, block + "attn_v").reshape(length, self.num_kv_heads, self.head_dim)
        if block + "attn_q_norm.weight" in self.tensors:
            q = self.norm(q, block + "attn_q_norm.weight")
            k = self.norm(k, block + "attn_k_norm.weight")
        cos, sin = self.rope_table(length, layer)
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)

        query_size = self.hidden // self.num_heads if self.is_gemma and self.num_layers == 62 else self.head_dim
        group = self.num_heads // self.num_kv_heads
        position = np.arange(length)
        visible = position[:, None] >= position[None, :]
        if self.is_local(layer):
            visible &= position[:, None] - position[None, :] < int(self.key("attention.sliding_window"))
        out = np.empty((length, self.num_heads, self.head_dim), np.float32)
        for head in range(self.num_heads):
            scores = q[:, head] @ k[:, head // group].T * np.float32(1 / math.sqrt(query_size))
            out[:, head] = softmax(np.where(visible, scores, -np.inf).astype(np.float32)) @ v[:, head // group]
        return self.linear(out.reshape(length, -1), block + "attn_output")

    def is_local(self, layer: int) -> bool:
        """Gemma 3: all but every sixth layer see a window only; the key gives another period, or one claim a layer."""
        if not self.is_gemma or not self.key("attention.sliding_window", 0):
            return False
        pattern = self.key("attention.sliding_window_pattern", 6)
        if isinstance(pattern, list):
            return bool(pattern[layer])
        return (layer + 1) % int(pattern) != 0

    def rope_table(self, length: int, layer: int) -> tuple[F32, F32]:
        """cos and sin, f32[T, head_dim / 2], of positions [0, T); computed in f64."""
        half = np.arange(self.head_dim // 2, dtype=np.float64)
        local = self.is_local(layer)
        base = float(self.key("rope.freq_base_swa", 10_000.0) if local else self.key("rope.freq_base", 10_000.0))
        frequency = base ** (-2 * half / self.head_dim)
        kind = self.key("rope.scaling.type", "linear")
        factor = float(self.key("rope.scaling.factor", self.key("rope.scale_linear", 1.0))) if not local else 1.0
        magnitude = float(self.key("rope.scaling.attn_factor", 1.0))
        if "rope_freqs.weight" in self.tensors:
            frequency = frequency / self.weight("rope_freqs.weight").astype(np.float64)
        if kind == "linear":
            frequency = frequency / factor
        elif kind == "yarn":
            original = float(self.key("rope.scaling.original_context_length", self.key("context_length")))

            def pair(turns: float) -> float:
                return self.head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

            low, high = max(math.floor(pair(32.0)), 0), min(math.ceil(pair(1.0)), self.head_dim - 1)
            keep = 1 - np.clip((half - low) / max(high - low, 0.001), 0, 1)
            frequency = keep * frequency + (1 - keep) * frequency / factor
            magnitude *= 1 + 0.1 * math.log(factor)
        angle = np.arange(length, dtype=np.float64)[:, None] * frequency
        return (np.cos(angle) * magnitude).astype(np.float32), (np.sin(angle) * magnitude).astype(np.float32)

    def rotate(self, x: F32, cos: F32, sin: F32) -> F32:
        """f32[T, heads, head_dim]: llama rotates neighbours, the others the halves of a head."""
        cos, sin = cos[:, None, :], sin[:, None, :]
        out = np.empty_like(x)
        if self.family == "llama":
            first, second = x[..., 0::2], x[..., 1::2]
            out[..., 0::2], out[..., 1::2] = first * cos - second * sin, first * sin + second * cos
        else:
            half = self.head_dim // 2
            first, second = x[..., :half], x[..., half:]
            out[..., :half], out[..., half:] = first * cos - second * sin, first * sin + second * cos
        return out

    def linear(self, x: F32, name: str) -> F32:
        """x @ W^T + b, the bias if there is one."""
        y = x @ self.weight(name + ".weight").T
        return y + self.weight(name + ".bias") if name + ".bias" in self.tensors else y

    def norm(self, x: F32, name: str) -> F32:
        """RMS norm over the last axis."""
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return np.asarray(x / scale * self.weight(name), dtype=np.float32)


def silu(x: F32) -> F32:
    with np.errstate(over="ignore"):  # far below zero, exp is infinite and the result 0, as it should be
        return np.asarray(x / (1 + np.exp(-x)), dtype=np.float32)


def gelu_tanh(x: F32) -> F32:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    return np.asarray(np.float32(0.5) * x * (1 + np.tanh(inner)), dtype=np.float32)


def softmax(scores: F32) -> F32:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))
