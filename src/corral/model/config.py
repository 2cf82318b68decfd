"""What a model is, apart from its weights: the numbers that drive the one decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corral.model.tensors import TensorRole

# By dtype of the cache: bytes of an element of K or V, and of the scale of each KV_SCALE_DIMS of them.
KV_BYTES = {"f16": (2, 0), "int8": (1, 2)}
KV_SCALE_DIMS = 32
KV_HEAD_PADDING = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelConfig:
    """A checked model description; made by `corral.model.architectures.read_config`.

    The fields from `num_layers` to `num_token_types` are those of _native.DecoderConfig.

    Args:
        architecture: the family, `general.architecture`.
        name: for people, `general.name` or the file's.
        context_length: longest context the model was made for, in tokens.
        tensor_roles: tensor name -> what it is to the decoder; names outside are not loaded.
        head_dim: of queries, keys and values alike.
        activation: "silu", "gelu_tanh" or "gelu" (by erf), of the feed-forward.
        rope_style: "interleaved" rotates pairs (2i, 2i + 1), "half" pairs (i, i + rope_dim / 2).
        inv_freq: f32[rope_dim / 2], radians per position, scaling included.
        local_inv_freq: the same for the layers with a sliding window, if they differ.
        rope_attn_factor: multiplies the rotated queries and keys (YaRN).
        attn_scale: multiplies q.k before the softmax.
        embedding_scale: multiplies the token embedding.
        sliding_window: key j is visible to query i of a local layer iff i - j < sliding_window, or
            |i - j| <= sliding_window / 2 if the attention is not causal; 0 is none.
        layer_is_local: num_layers claims, true where the window holds.
        attn_softcap, logit_softcap: x -> c tanh(x / c); 0 is none.
        norm_kind: "rms", or "layer".
        is_post_norm: what a norm gives replaces the residual stream (BERT), not only feeds the next matmul.
        is_causal: a token sees those before it; otherwise its whole sequence, which one step must compute.
        is_gated: the feed-forward is activation(gate) * up; otherwise activation(up).
        num_positions: learned position embeddings; 0 is none.
        num_token_types: token type embeddings, of which 0 is added to all tokens; 0 is none.
        pooling: "mean", "cls" or "last": how an embedding model makes one vector of a text; None for others.
    """

    architecture: str
    name: str
    context_length: int
    tensor_roles: dict[str, TensorRole]
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    rope_style: str
    rope_dim: int
    inv_freq: npt.NDArray[np.float32]
    attn_scale: float
    activation: str = "silu"
    local_inv_freq: npt.NDArray[np.float32] | None = None
    rope_attn_factor: float = 1.0
    embedding_scale: float = 1.0
    sliding_window: int = 0
    layer_is_local: tuple[bool, ...] = ()
    attn_softcap: float = 0.0
    logit_softcap: float = 0.0
    norm_kind: str = "rms"
    is_post_norm: bool = False
    is_causal: bool = True
    is_gated: bool = True
    num_positions: int = 0
    num_token_types: int = 0
    pooling: str | None = None

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes of K and V that one token takes in all layers; the cache pads heads to KV_HEAD_PADDING.

        Args:
            dtype: "f16" or "int8".
        """
        padded_head_dim = -(-self.head_dim // KV_HEAD_PADDING) * KV_HEAD_PADDING
        element_bytes, scale_bytes = KV_BYTES[dtype]
        num_scales = -(-padded_head_dim // KV_SCALE_DIMS)
        return self.num_layers * self.num_kv_heads * 2 * (padded_head_dim * element_bytes + num_scales * scale_bytes)

    @property
    def is_embedding(self) -> bool:
        """The model was made for embeddings: it cannot generate."""
        return self.pooling is not None

    @property
    def is_tied(self) -> bool:
        """The head is the token embedding."""
        return "output.weight" not in self.tensor_roles

    def decoder_fields(self) -> dict[str, Any]:
        """The keyword arguments of _native.DecoderConfig."""
        own = {"architecture", "name", "context_length", "tensor_roles", "layer_is_local", "pooling"}
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in own}
        fields["layer_is_local"] = list(self.layer_is_local) or [False] * self.num_layers
        return fields
