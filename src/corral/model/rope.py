"""Rotary position embedding: every scaling variant becomes one table of angles per position.

The native decoder rotates pair i of a head at position p by p * inv_freq[i] and multiplies by attn_factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corral.errors import InvalidModelFile
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.tensor_type import TensorType

KNOWN_SCALINGS = ("none", "linear", "yarn")
DEFAULT_FREQ_BASE = 10_000.0
MAX_CONTEXT = 1 << 30
# YaRN knobs that no supported family is published with; other values than these are refused.
_YARN_FIXED = {"yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_log_multiplier": 0.0}


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How angles change for contexts beyond the trained one.

    Args:
        kind: one of KNOWN_SCALINGS.
        factor: context stretch; angles shrink by it.
        attn_factor: the file's own multiplier of rotated queries and keys.
        original_context: context before stretching, in tokens (YaRN).
        beta_fast, beta_slow: turns within the original context above which a pair keeps its angle, and below which
            it is interpolated in full (YaRN).
    """

    kind: str = "none"
    factor: float = 1.0
    attn_factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True, slots=True)
class RopeTable:
    """inv_freq: f32[rope_dim / 2], radians per position; attn_factor multiplies the rotated vectors."""

    inv_freq: npt.NDArray[np.float32]
    attn_factor: float


def read_rope_scaling(reader: MetadataReader, context_length: int) -> RopeScaling:
    """The `rope.scaling.*` keys, with llama.cpp's defaults."""
    kind = reader.string("rope.scaling.type", "linear")
    if kind not in KNOWN_SCALINGS:
        known = ", ".join(KNOWN_SCALINGS)
        reader.refuse(f"rope scaling {kind!r:.80} is not supported; the known ones are {known}")
    factor_key = "rope.scaling.factor" if reader.has("rope.scaling.factor") else "rope.scale_linear"
    factor = reader.number(factor_key, 0.0, 1e6, default=0.0) or 1.0  # 0 means unset
    attn_factor = reader.number("rope.scaling.attn_factor", 0.0, 1e3, default=1.0, exclusive_low=True)
    if kind != "yarn":
        return RopeScaling("linear" if kind == "linear" else "none", factor if kind == "linear" else 1.0, attn_factor)
    for name, allowed in _YARN_FIXED.items():
        value = reader.number(f"rope.scaling.{name}", -1e6, 1e6, default=allowed)
        if value != allowed:
            reader.refuse(f"{reader.key(f'rope.scaling.{name}')} is {value:g}; only {allowed:g} is supported")
    beta_fast = reader.number("rope.scaling.yarn_beta_fast", 0.0, 1e6, default=32.0, exclusive_low=True)
    beta_slow = reader.number("rope.scaling.yarn_beta_slow", 0.0, 1e6, default=1.0, exclusive_low=True)
    original = reader.integer("rope.scaling.original_context_length", 1, MAX_CONTEXT, default=context_length)
    return RopeScaling("yarn", factor, attn_factor, original, beta_fast, beta_slow)


def make_rope_table(
    rope_dim: int, freq_base: float, scaling: RopeScaling, freq_factors: npt.NDArray[np.float32] | None = None
) -> RopeTable:
    """The table of one rope: rope_dim is even, freq_base above 1.

    `freq_factors` (f32[rope_dim / 2], the `rope_freqs.weight` of Llama 3) divide the angles.
    """
    inv_freq = freq_base ** (-np.arange(0, rope_dim, 2, dtype=np.float64) / rope_dim)
    if freq_factors is not None:
        inv_freq /= freq_factors.astype(np.float64)
    attn_factor = scaling.attn_factor
    if scaling.kind == "yarn":
        keep = _yarn_kept_share(rope_dim, freq_base, scaling)
        inv_freq = inv_freq * keep + inv_freq / scaling.factor * (1.0 - keep)
        attn_factor *= 1.0 + 0.1 * math.log(max(scaling.factor, 1.0))
    elif scaling.kind == "linear":
        inv_freq = inv_freq / scaling.factor
    return RopeTable(inv_freq.astype(np.float32), attn_factor)


def _yarn_kept_share(rope_dim: int, freq_base: float, scaling: RopeScaling) -> npt.NDArray[np.float64]:
    """f64[rope_dim / 2]: 1 where a pair keeps its angle, 0 where it is interpolated. Source: the YaRN paper, 3.2."""

    def pair_that_turns(turns: float) -> float:
        """The (fractional) pair that makes `turns` turns within the original context."""
        return rope_dim * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(freq_base))

    low = max(0.0, math.floor(pair_that_turns(scaling.beta_fast)))
    high = min(rope_dim - 1.0, math.ceil(pair_that_turns(scaling.beta_slow)))
    ramp = (np.arange(rope_dim // 2, dtype=np.float64) - low) / max(0.001, high - low)
    return 1.0 - np.clip(ramp, 0.0, 1.0)


def read_freq_factors(gguf: GGUFFile, rope_dim: int) -> npt.NDArray[np.float32] | None:
    """`rope_freqs.weight`, f32[rope_dim / 2], if the file has it.

    Raises:
        InvalidModelFile: wrong type, length, or a factor that is not above 0.
    """
    info = gguf.tensors.get("rope_freqs.weight")
    if info is None:
        return None
    path = gguf.paths[info.part]
    if info.type is not TensorType.F32 or info.num_bytes != 4 * (rope_dim // 2):
        raise InvalidModelFile(
            path,
            info.offset,
            f"tensor 'rope_freqs.weight' is {info.type.name} of shape {list(info.shape)}; "
            f"F32 of shape {[rope_dim // 2]} is needed",
        )
    factors = np.frombuffer(gguf.data(info), dtype="<f4").astype(np.float32)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise InvalidModelFile(path, info.offset, "tensor 'rope_freqs.weight' holds factors that are not above 0")
    return factors
