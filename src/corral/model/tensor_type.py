"""The tensor types Corral computes with: ggml's ids, block sizes, and the names of those it does not know."""

from __future__ import annotations

import enum


class TensorType(enum.IntEnum):
    """ggml's id of a tensor type. A row of K weights is K / block_size blocks of block_bytes bytes."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ4_NL = 20
    IQ4_XS = 23
    BF16 = 30

    @property
    def block_size(self) -> int:
        """Weights in one block."""
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block in the file."""
        return _BLOCKS[self][1]

    @property
    def is_float(self) -> bool:
        """Stored as plain floats, one by one."""
        return self.block_size == 1

    def row_bytes(self, row_length: int) -> int:
        """Bytes of a row of `row_length` weights, a multiple of block_size."""
        return row_length // self.block_size * self.block_bytes


# (weights, bytes) of a block, from the struct definitions in ggml-common.h.
_BLOCKS: dict[TensorType, tuple[int, int]] = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.IQ4_NL: (32, 18),
    TensorType.Q2_K: (256, 84),
    TensorType.Q3_K: (256, 110),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
    TensorType.IQ4_XS: (256, 136),
}

# ggml types that a sound file may hold and Corral does not compute with, so that they are refused by name.
UNSUPPORTED_TYPE_NAMES: dict[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    34: "TQ1_0",
    35: "TQ2_0",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}

SUPPORTED_TYPES: dict[int, TensorType] = {int(tensor_type): tensor_type for tensor_type in TensorType}


def known_type_names() -> str:
    """The supported types for an error message: "F32, F16, Q4_0, ..."."""
    return ", ".join(tensor_type.name for tensor_type in TensorType)
