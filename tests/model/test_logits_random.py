"""Logits of random tiny models against the NumPy decoder: each family, each tensor type, each rope.

Float weights leave only the f16 of keys and values to rounding. Quantised weights meet int8 activations: about 1/254 of
a block's largest value for each of some hundred products, measured at 1 to 3 % of the logits' deviation (llama.cpp's
own figure is the same), so 5 % is a fault.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral.model.tensor_type import TensorType
from tests.support.gguf_writer import FAMILIES, TinyModel, write_tiny_gguf
from tests.support.native_runner import NativeRunner
from tests.support.reference_model import ReferenceModel

FLOAT_ERROR = 2e-3  # root mean square, in units of the logits' deviation
QUANTISED_ERROR = 5e-2
NUM_TOKENS = 70  # more than two windows of 32


def relative_error(path: Path, seed: int) -> float:
    """Root mean square of the difference over the deviation of the truth."""
    ids = [int(token) for token in np.random.default_rng(seed).integers(0, 460, NUM_TOKENS)]
    truth = ReferenceModel(path).logits(ids)
    found = NativeRunner(path, num_tokens=NUM_TOKENS).all_logits(ids)
    return float(np.sqrt(np.mean((found - truth) ** 2)) / truth.std())


# What a type is packed to has nothing to do with the family; each pair of them is for those who have the time.
PAIRS = [
    pytest.param(family, kind, id=f"{family}-{kind.name}", marks=() if i % len(FAMILIES) == j else pytest.mark.slow)
    for i, kind in enumerate(TensorType)
    for j, family in enumerate(FAMILIES)
]


@pytest.mark.parametrize(("family", "tensor_type"), PAIRS)
def test_every_family_in_every_type(family: str, tensor_type: TensorType, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", TinyModel(family=family, tensor_type=tensor_type, seed=3))
    error = relative_error(path, seed=4)
    assert error < (FLOAT_ERROR if tensor_type.is_float else QUANTISED_ERROR)
    if not tensor_type.is_float:
        assert error > 1e-4  # the quantised path was taken


YARN = {
    "{arch}.rope.scaling.type": "yarn",
    "{arch}.rope.scaling.factor": 4.0,
    "{arch}.rope.scaling.original_context_length": 64,
}
LINEAR = {"{arch}.rope.scaling.type": "linear", "{arch}.rope.scaling.factor": 8.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama 3 rope": {"rope_freqs": True},
    "llama linear": {"extra": LINEAR},
    "llama yarn": {"extra": YARN},
    "llama yarn with factor": {"extra": YARN | {"{arch}.rope.scaling.attn_factor": 1.3}},
    "llama 3 rope and yarn": {"rope_freqs": True, "extra": YARN},
    "llama tied, SentencePiece": {"tied": True, "vocab": "spm", "embedding_std": 0.1},
    "llama with biases": {"qkv_bias": True},
    "llama with its own head size": {"head_dim": 32},
    "llama without groups": {"num_kv_heads": 4},
    "qwen2 yarn": {"family": "qwen2", "extra": YARN},
    "qwen3 wide heads": {"family": "qwen3", "head_dim": 128},
    "gemma3 linear": {"family": "gemma3", "extra": LINEAR},
    "gemma3 soft cap": {"family": "gemma3", "extra": {"{arch}.final_logit_softcapping": 5.0}},
    "gemma3 local base": {"family": "gemma3", "extra": {"{arch}.rope.freq_base_swa": 500.0}},
    "gemma3 without window": {"family": "gemma3", "extra": {"{arch}.attention.sliding_window": None}},
    "gemma3 five to one": {"family": "gemma3", "num_layers": 7,
                           "extra": {"{arch}.attention.sliding_window_pattern": None}},
    "gemma3 as 27B": {"family": "gemma3", "num_layers": 62, "hidden": 96, "intermediate": 96, "num_heads": 2,
                      "num_kv_heads": 1, "head_dim": 32},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_in_f32(variant: str, tmp_path: Path) -> None:
    model = TinyModel(tensor_type=TensorType.F32, seed=5, **VARIANTS[variant])
    assert relative_error(write_tiny_gguf(tmp_path / "tiny.gguf", model), seed=6) < FLOAT_ERROR


@pytest.mark.parametrize("missing", ["yarn", "rope", "window"])
def test_the_measure_sees_what_a_wrong_decoder_does(missing: str, tmp_path: Path) -> None:
    """A reference that ignores one feature is far away, so the limits above mean something."""
    right = {
        "yarn": TinyModel(extra=YARN),
        "rope": TinyModel(rope_freqs=True),
        "window": TinyModel(family="gemma3"),
    }[missing]
    wrong = {
        "yarn": replace(right, extra={}),
        "rope": replace(right, rope_freqs=False),
        "window": replace(right, sliding_window=33),
    }[missing]
    ids = list(range(NUM_TOKENS))
    found = NativeRunner(write_tiny_gguf(tmp_path / "right.gguf", replace(right, tensor_type=TensorType.F32)))
    truth = ReferenceModel(write_tiny_gguf(tmp_path / "wrong.gguf", replace(wrong, tensor_type=TensorType.F32)))
    expected = truth.logits(ids)
    error = np.sqrt(np.mean((found.all_logits(ids) - expected) ** 2)) / expected.std()
    assert error > 5 * FLOAT_ERROR
