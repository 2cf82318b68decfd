"""Tensor names of GGUF files: what each tensor is to the decoder, and the shape it must have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corral.errors import InvalidModelFile, UnsupportedModel
from corral.model.gguf import GGUFFile, TensorInfo

NO_LAYER = -1

# Role of the native model -> name in the file; {} is the layer.
MODEL_TENSORS = {
    "token_embd": "token_embd.weight",
    "output_norm": "output_norm.weight",
    "output": "output.weight",
}
LAYER_TENSORS = {
    "attn_norm": "blk.{}.attn_norm.weight",
    "attn_q": "blk.{}.attn_q.weight",
    "attn_k": "blk.{}.attn_k.weight",
    "attn_v": "blk.{}.attn_v.weight",
    "attn_output": "blk.{}.attn_output.weight",
    "ffn_norm": "blk.{}.ffn_norm.weight",
    "ffn_gate": "blk.{}.ffn_gate.weight",
    "ffn_up": "blk.{}.ffn_up.weight",
    "ffn_down": "blk.{}.ffn_down.weight",
    "attn_q_bias": "blk.{}.attn_q.bias",
    "attn_k_bias": "blk.{}.attn_k.bias",
    "attn_v_bias": "blk.{}.attn_v.bias",
    "attn_output_bias": "blk.{}.attn_output.bias",
    "attn_q_norm": "blk.{}.attn_q_norm.weight",
    "attn_k_norm": "blk.{}.attn_k_norm.weight",
    "attn_post_norm": "blk.{}.post_attention_norm.weight",
    "ffn_post_norm": "blk.{}.post_ffw_norm.weight",
}
MATRIX_ROLES = frozenset(
    (
        *("token_embd", "output", "position_embd", "token_types"),
        *("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
    )
)
# Every dense decoder has these in each layer; families add to them.
BASE_LAYER_ROLES = frozenset(
    ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
)
QKV_BIASES = frozenset(("attn_q_bias", "attn_k_bias", "attn_v_bias"))
# rope_freqs becomes part of ModelConfig.inv_freq; old converters left the other one, which holds what rope computes.
_NOT_LOADED = ("rope_freqs.weight",)
_NOT_LOADED_SUFFIX = ".attn_rot_embd.weight"


@dataclass(frozen=True, slots=True)
class TensorRole:
    """What a tensor is to the decoder: a matrix of `rows` outputs and `cols` inputs, or a vector (rows = 1).

    A tensor that holds several has them as `parts`, in order: one after the other by rows, or in a vector by values.
    """

    role: str
    layer: int  # NO_LAYER for those outside the layers
    rows: int
    cols: int
    parts: tuple[TensorRole, ...] = ()

    @property
    def pieces(self) -> tuple[TensorRole, ...]:
        """What the decoder takes: the parts, or the tensor itself."""
        return self.parts or (self,)

    @property
    def is_matrix(self) -> bool:
        return self.role in MATRIX_ROLES

    @property
    def shape(self) -> tuple[int, ...]:
        """As it stands in the file, row length first."""
        return (self.cols, self.rows) if self.is_matrix else (self.cols,)


@dataclass(frozen=True, slots=True)
class Widths:
    """The sizes that tensor shapes are made of."""

    num_layers: int
    hidden: int
    intermediate: int
    query: int  # num_heads * head_dim
    key: int  # num_kv_heads * head_dim
    head: int
    vocab: int

    def of_role(self, role: str) -> tuple[int, int]:
        """(rows, cols) of a role."""
        hidden, ffn = self.hidden, self.intermediate
        sizes = {
            "token_embd": (self.vocab, hidden),
            "output": (self.vocab, hidden),
            "attn_q": (self.query, hidden),
            "attn_k": (self.key, hidden),
            "attn_v": (self.key, hidden),
            "attn_output": (hidden, self.query),
            "ffn_gate": (ffn, hidden),
            "ffn_up": (ffn, hidden),
            "ffn_down": (hidden, ffn),
            "attn_q_bias": (1, self.query),
            "attn_k_bias": (1, self.key),
            "attn_v_bias": (1, self.key),
            "attn_q_norm": (1, self.head),
            "attn_k_norm": (1, self.head),
            "attn_qkv": (self.query + 2 * self.key, hidden),
            "attn_qkv_bias": (1, self.query + 2 * self.key),
            "ffn_up_bias": (1, ffn),
        }
        return sizes.get(role, (1, hidden))  # the norms with their biases, attn_output_bias and ffn_down_bias


def assign_roles(
    gguf: GGUFFile, widths: Widths, required: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, TensorRole]:
    """Gives each tensor of the file its role, after checking its shape.

    Raises:
        InvalidModelFile: a required tensor is missing, or a shape is not what the metadata says.
        UnsupportedModel: a tensor that this family is not known to have.
    """
    known: dict[str, TensorRole] = {}
    needed: list[str] = []
    for role, name in MODEL_TENSORS.items():
        known[name] = TensorRole(role, NO_LAYER, *widths.of_role(role))
        if role != "output":
            needed.append(name)
    required = frozenset(required)
    for layer in range(widths.num_layers):
        for role in sorted(required | frozenset(optional)):
            name = LAYER_TENSORS[role].format(layer)
            known[name] = TensorRole(role, layer, *widths.of_role(role))
            if role in required:
                needed.append(name)
    return check_roles(gguf, known, needed)


def check_roles(gguf: GGUFFile, known: dict[str, TensorRole], needed: Iterable[str]) -> dict[str, TensorRole]:
    """The tensors of the file with their roles in `known`, by name; raises as `assign_roles` does."""
    for name in needed:
        if name not in gguf.tensors:
            raise InvalidModelFile(gguf.path, 0, f"tensor {name!r} is missing")
    return {info.name: _checked(gguf, info, known) for info in gguf.tensors.values() if not _is_not_loaded(info.name)}


def _is_not_loaded(name: str) -> bool:
    return name in _NOT_LOADED or name.endswith(_NOT_LOADED_SUFFIX)


def _checked(gguf: GGUFFile, info: TensorInfo, known: dict[str, TensorRole]) -> TensorRole:
    role = known.get(info.name)
    if role is None:
        raise UnsupportedModel(
            f"{gguf.path}: tensor {info.name!r} belongs to a variant of this family that is not supported"
        )
    shape = info.shape
    while len(shape) > 1 and shape[-1] == 1:  # some writers keep trailing dimensions of 1
        shape = shape[:-1]
    expected = role.shape if role.rows > 1 or not role.is_matrix else (role.cols,)
    if shape != expected:
        raise InvalidModelFile(
            gguf.paths[info.part],
            info.offset,
            f"tensor {info.name!r} has shape {list(info.shape)}; the metadata asks for {list(role.shape)}",
        )
    if not role.is_matrix and not info.type.is_float:
        raise UnsupportedModel(
            f"{gguf.path}: tensor {info.name!r} is of type {info.type.name}; norms and biases may be F32, F16 or BF16"
        )
    return role
