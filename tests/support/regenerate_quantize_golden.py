"""Makes tests/golden/quantized_blocks.npz anew: weights, and the blocks that llama.cpp's own quantiser makes of them.

pip install '.[reference,test]' && python -m tests.support.regenerate_quantize_golden
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from corral.model.tensor_type import TensorType as T

GOLDEN = Path(__file__).parent.parent / "golden" / "quantized_blocks.npz"
TYPES = (T.Q4_0, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K)
ROWS, COLS = 48, 512


def weights() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Rows as models have them: some wide, some narrow, some with outliers or a mean of their own."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((ROWS, COLS)) * np.exp(rng.standard_normal((ROWS, 1)) - 4)
    rows[::6] += 0.5 * np.abs(rows[::6]).mean()
    rows[3::6, ::37] *= 8.0
    return rows.astype(np.float32)


def main() -> None:
    """Calls ggml's quantiser, inside llama-cpp-python's library."""
    import llama_cpp

    source = np.ascontiguousarray(weights())
    ggml = ctypes.CDLL(llama_cpp.llama_cpp._lib._name.replace("libllama", "libggml-base"))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    arrays: dict[str, np.ndarray[Any, Any]] = {"weights": source}
    for kind in TYPES:
        out = np.zeros((ROWS, kind.row_bytes(COLS)), np.uint8)
        ggml.ggml_quantize_chunk(
            ctypes.c_int(int(kind)), source.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(0), ctypes.c_int64(ROWS), ctypes.c_int64(COLS), None,
        )  # fmt: skip
        arrays[kind.name] = out.reshape(-1, kind.block_bytes)
    np.savez_compressed(GOLDEN, **arrays)  # type: ignore[arg-type]  # numpy's stub takes keywords for flags


if __name__ == "__main__":
    main()
