"""A random model of a few kilobytes, in the core and in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from corral import _native

F32 = npt.NDArray[np.float32]
F32_TYPE = 0
Q8_0_TYPE = 8


@dataclass(frozen=True)
class Shape:
    """Fields of DecoderConfig, with defaults small enough for a test."""

    num_layers: int = 2
    hidden_size: int = 64
    intermediate_size: int = 96
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    vocab_size: int = 50
    norm_eps: float = 1e-5
    activation: str = "silu"
    rope_style: str = "interleaved"
    rope_dim: int = 16
    rope_attn_factor: float = 1.0
    attn_scale: float = 0.25
    embedding_scale: float = 1.0
    sliding_window: int = 0
    layer_is_local: tuple[bool, ...] = (False, False)
    attn_softcap: float = 0.0
    logit_softcap: float = 0.0
    has_local_rope: bool = False
    extras: frozenset[str] = field(default_factory=frozenset)  # optional roles that the model has
    weight_type: int = F32_TYPE

    def with_(self, **changes: Any) -> Shape:
        return replace(self, **changes)

    def inv_freq(self, base: float = 10000.0) -> F32:
        return (base ** (-np.arange(0, self.rope_dim, 2) / max(self.rope_dim, 1))).astype(np.float32)

    def local_inv_freq(self) -> F32 | None:
        return self.inv_freq(100.0) if self.has_local_rope else None

    def config(self) -> _native.DecoderConfig:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("has_local_rope", "extras", "weight_type"):
            del fields[name]
        fields["layer_is_local"] = list(self.layer_is_local)
        return _native.DecoderConfig(**fields, inv_freq=self.inv_freq(), local_inv_freq=self.local_inv_freq())


def matrix_shapes(shape: Shape) -> dict[str, tuple[int, int]]:
    q, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    hidden, inner = shape.hidden_size, shape.intermediate_size
    return {
        "attn_q": (q, hidden),
        "attn_k": (kv, hidden),
        "attn_v": (kv, hidden),
        "attn_output": (hidden, q),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }


def vector_sizes(shape: Shape) -> dict[str, int]:
    q, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    optional = {
        "attn_q_bias": q,
        "attn_k_bias": kv,
        "attn_v_bias": kv,
        "attn_output_bias": shape.hidden_size,
        "attn_q_norm": shape.head_dim,
        "attn_k_norm": shape.head_dim,
        "attn_post_norm": shape.hidden_size,
        "ffn_post_norm": shape.hidden_size,
    }
    required = {"attn_norm": shape.hidden_size, "ffn_norm": shape.hidden_size}
    return required | {name: size for name, size in optional.items() if name in shape.extras}


Weights = dict[tuple[str, int], F32]  # (role, layer) -> values; layer -1: the whole model


def random_weights(shape: Shape, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)

    def normal(*size: int, scale: float) -> F32:
        return (rng.standard_normal(size) * scale).astype(np.float32)

    weights: Weights = {
        ("token_embd", -1): normal(shape.vocab_size, shape.hidden_size, scale=1.0),
        ("output_norm", -1): 1 + normal(shape.hidden_size, scale=0.1),
    }
    if "output" in shape.extras:
        weights["output", -1] = normal(shape.vocab_size, shape.hidden_size, scale=0.3)
    for layer in range(shape.num_layers):
        for role, (rows, cols) in matrix_shapes(shape).items():
            weights[role, layer] = normal(rows, cols, scale=2.0 * cols**-0.5)
        for role, size in vector_sizes(shape).items():
            weights[role, layer] = (1 if "norm" in role else 0) + normal(size, scale=0.2)
    return weights


def pack_q8_0(values: F32) -> bytes:
    """GGUF's Q8_0: an f16 scale and 32 int8 for each 32 values."""
    blocks = values.reshape(-1, 32)
    scales = (np.abs(blocks).max(axis=1) / 127).astype(np.float16)
    safe = np.where(scales == 0, 1, scales).astype(np.float32)
    quants = np.clip(np.rint(blocks / safe[:, None]), -127, 127).astype(np.int8)
    return np.concatenate([scales.view(np.int8).reshape(-1, 2), quants], axis=1).tobytes()


def build_model(shape: Shape, weights: Weights, num_threads: int = 1) -> _native.Model:
    model = _native.Model(shape.config(), num_threads)
    for (role, layer), values in weights.items():
        rows, cols = values.shape if values.ndim == 2 else (1, values.size)
        quantised = values.ndim == 2 and shape.weight_type == Q8_0_TYPE
        data = pack_q8_0(values) if quantised else values.tobytes()
        model.add_tensor(role, max(layer, 0), Q8_0_TYPE if quantised else F32_TYPE, rows, cols, data)
    model.finish()
    return model


class Runner:
    """A decoder that keeps the block tables of its sequences, by name, on shuffled blocks."""

    def __init__(
        self, model: _native.Model, vocab_size: int, *, num_blocks: int = 64, max_tokens: int = 64, dtype: str = "f16"
    ) -> None:
        self.model = model
        self.vocab_size = vocab_size
        self.kv_cache = _native.KVCache(model, num_blocks, dtype)
        self.decoder = _native.Decoder(model, self.kv_cache, max_tokens, min(32, max_tokens))
        self._free = list(np.random.default_rng(5).permutation(num_blocks))
        self._tables: dict[str, list[int]] = {}
        self._lengths: dict[str, int] = {}

    def step(
        self, parts: dict[str, list[int]], adapters: Mapping[str, _native.Adapter | None] | None = None
    ) -> dict[str, F32]:
        """Feeds tokens to the named sequences; returns the logits of all of them, [tokens, vocab] each."""
        starts, tokens, offsets = [], [], [0]
        for name, ids in parts.items():
            starts.append(self._lengths.get(name, 0))
            self._lengths[name] = starts[-1] + len(ids)
            table = self._tables.setdefault(name, [])
            while len(table) * 16 < self._lengths[name]:
                table.append(int(self._free.pop()))
            tokens += ids
            offsets.append(len(tokens))
        width = max(len(self._tables[name]) for name in parts)
        tables = np.zeros((len(parts), width), np.int32)
        for index, name in enumerate(parts):
            tables[index, : len(self._tables[name])] = self._tables[name]
        self.decoder.forward(
            np.array(tokens, np.int32),
            np.array(offsets, np.int32),
            np.array(starts, np.int32),
            tables,
            np.arange(len(tokens), dtype=np.int32),
            *_adapter_arguments(list(parts), adapters),
        )
        logits = self.decoder.logits()
        return {name: logits[offsets[i] : offsets[i + 1]] for i, name in enumerate(parts)}

    def logits(self, name: str, ids: list[int], *, chunk: int = 64, adapter: _native.Adapter | None = None) -> F32:
        """Logits of all tokens of a fresh sequence, fed `chunk` at a time."""
        steps = (self.step({name: ids[i : i + chunk]}, {name: adapter}) for i in range(0, len(ids), chunk))
        return np.concatenate([step[name] for step in steps])


def _adapter_arguments(names: list[str], adapters: Mapping[str, _native.Adapter | None] | None) -> tuple[Any, ...]:
    """adapter_ids and adapters of Decoder.forward; none at all where no sequence has one."""
    used = [adapter for name in names if (adapter := (adapters or {}).get(name)) is not None]
    if not used:
        return ()
    distinct = list(dict.fromkeys(used))
    ids = [-1 if (adapter := (adapters or {}).get(name)) is None else distinct.index(adapter) for name in names]
    return np.array(ids, np.int32), distinct


def reference_logits(shape: Shape, weights: Weights, ids: list[int]) -> npt.NDArray[np.float64]:
    """The same model in NumPy, in f64, without cache: logits [len(ids), vocab]."""
    w = {key: values.astype(np.float64) for key, values in weights.items()}
    x = w["token_embd", -1][ids] * shape.embedding_scale
    for layer in range(shape.num_layers):
        attended = _attention(shape, w, layer, _rms_norm(x, w["attn_norm", layer], shape.norm_eps))
        if ("attn_post_norm", layer) in w:
            attended = _rms_norm(attended, w["attn_post_norm", layer], shape.norm_eps)
        x = x + attended
        h = _rms_norm(x, w["ffn_norm", layer], shape.norm_eps)
        gate = h @ w["ffn_gate", layer].T
        if shape.activation == "silu":
            gate = gate / (1 + np.exp(-gate))
        else:
            gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        h = (gate * (h @ w["ffn_up", layer].T)) @ w["ffn_down", layer].T
        if ("ffn_post_norm", layer) in w:
            h = _rms_norm(h, w["ffn_post_norm", layer], shape.norm_eps)
        x = x + h
    x = _rms_norm(x, w["output_norm", -1], shape.norm_eps)
    logits: F64 = x @ w.get(("output", -1), w["token_embd", -1]).T
    return _softcap(logits, shape.logit_softcap)


F64 = npt.NDArray[np.float64]


def _rms_norm(x: F64, weight: F64, eps: float) -> F64:
    scale: F64 = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x * scale * weight


def _softcap(x: F64, cap: float) -> F64:
    capped: F64 = cap * np.tanh(x / cap) if cap else x
    return capped


def _attention(shape: Shape, w: dict[tuple[str, int], F64], layer: int, h: F64) -> F64:
    length = len(h)
    is_local = shape.layer_is_local[layer]

    def heads(name: str, count: int) -> F64:
        out = h @ w[f"attn_{name}", layer].T
        out = out + w.get((f"attn_{name}_bias", layer), np.zeros(1))
        out = out.reshape(length, count, shape.head_dim)
        if (f"attn_{name}_norm", layer) in w:
            out = _rms_norm(out, w[f"attn_{name}_norm", layer], shape.norm_eps)
        return out

    q = _rope(shape, heads("q", shape.num_heads), is_local)
    k = _rope(shape, heads("k", shape.num_kv_heads), is_local).astype(np.float16).astype(np.float64)
    v = heads("v", shape.num_kv_heads).astype(np.float16).astype(np.float64)
    group = shape.num_heads // shape.num_kv_heads
    scores = np.einsum("ihd,jhd->hij", q, k.repeat(group, axis=1)) * shape.attn_scale
    scores = _softcap(scores, shape.attn_softcap)
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    window = shape.sliding_window if is_local and shape.sliding_window else length
    scores = np.where((distance >= 0) & (distance < window), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out = np.einsum("hij,jhd->ihd", p, v.repeat(group, axis=1)).reshape(length, -1)
    projected: F64 = out @ w["attn_output", layer].T
    return projected + w.get(("attn_output_bias", layer), np.zeros(1))


def _rope(shape: Shape, x: F64, is_local: bool) -> F64:
    local = shape.local_inv_freq()
    inv_freq = local if is_local and local is not None else shape.inv_freq()
    angle = np.arange(len(x))[:, None, None] * inv_freq.astype(np.float64)
    cos, sin = np.cos(angle) * shape.rope_attn_factor, np.sin(angle) * shape.rope_attn_factor
    half = shape.rope_dim // 2
    out = x.copy()
    if shape.rope_style == "half":
        a, b = x[..., :half], x[..., half : shape.rope_dim]
        out[..., :half], out[..., half : shape.rope_dim] = a * cos - b * sin, a * sin + b * cos
    else:
        a, b = x[..., 0 : shape.rope_dim : 2], x[..., 1 : shape.rope_dim : 2]
        out[..., 0 : shape.rope_dim : 2], out[..., 1 : shape.rope_dim : 2] = a * cos - b * sin, a * sin + b * cos
    return out
