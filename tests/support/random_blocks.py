"""Random weights of every tensor type, in file layout.

gguf-py quantises the simple types. For the others it has no quantiser: their blocks are random bits under sane scales.
"""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt

from corral.model.tensor_type import TensorType

# Where a block keeps its f16 scale and its f16 minimum scale, and the ratio of the two that makes the mean zero.
_SCALES: dict[TensorType, tuple[int, int | None, float]] = {
    TensorType.Q2_K: (80, 82, 1.5),
    TensorType.Q3_K: (108, None, 0.0),
    TensorType.Q4_K: (0, 2, 7.5),
    TensorType.Q5_K: (0, 2, 15.5),
    TensorType.Q6_K: (208, None, 0.0),
    TensorType.IQ4_NL: (0, None, 0.0),
    TensorType.IQ4_XS: (0, None, 0.0),
}


def random_matrix(
    tensor_type: TensorType, rows: int, cols: int, std: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """u8[rows, row bytes]: weights of about mean 0 and standard deviation `std`."""
    if tensor_type not in _SCALES:
        values = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(std)
        return quantize(values, tensor_type)
    num_blocks = rows * cols // tensor_type.block_size
    blocks = rng.integers(0, 256, (num_blocks, tensor_type.block_bytes), dtype=np.uint8)
    _set_scales(blocks, tensor_type, np.ones(num_blocks))
    # Rounded: the last bits of a sum depend on the machine's vector width, and the file must not.
    unit_std = float(f"{dequantize(blocks, tensor_type).std():.3g}")
    scales = rng.uniform(0.75, 1.25, num_blocks) * std / unit_std
    if tensor_type is TensorType.IQ4_NL:  # its code book leans to one side; signs bring the mean back to zero
        scales *= rng.choice([-1.0, 1.0], num_blocks)
    _set_scales(blocks, tensor_type, scales)
    return blocks.reshape(rows, -1)


def quantize(values: npt.NDArray[np.float32], tensor_type: TensorType) -> npt.NDArray[np.uint8]:
    """f32[rows, cols] -> u8[rows, row bytes], for the types that gguf-py can make."""
    encoded = gguf.quants.quantize(values, gguf.GGMLQuantizationType(int(tensor_type)))
    return np.ascontiguousarray(encoded).view(np.uint8).reshape(values.shape[0], -1)


def dequantize(data: npt.NDArray[np.uint8], tensor_type: TensorType) -> npt.NDArray[np.float32]:
    """u8[rows, row bytes] -> f32[rows, cols], by gguf-py."""
    kind = gguf.GGMLQuantizationType(int(tensor_type))
    if tensor_type is TensorType.F32:
        return data.view(np.float32)
    if tensor_type is TensorType.F16:
        return data.view(np.float16).astype(np.float32)
    values: npt.NDArray[np.float32] = gguf.quants.dequantize(data, kind)
    return values


def _set_scales(blocks: npt.NDArray[np.uint8], tensor_type: TensorType, scales: npt.NDArray[np.float64]) -> None:
    scale_at, min_at, ratio = _SCALES[tensor_type]
    blocks[:, scale_at : scale_at + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
    if min_at is not None:
        blocks[:, min_at : min_at + 2] = (scales * ratio).astype("<f2").view(np.uint8).reshape(-1, 2)
