"""Every family, rope scaling, tensor type and LoRA adapter, on tiny random models, against llama.cpp's goldens.

The models are written from seeds; the goldens come from tests/support/regenerate_golden.py. In f32 nothing is left to
rounding, so a window that is one token too long, or a rope with the wrong base, shows at once.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.agreement import Agreement, compare_with_golden
from tests.support.golden import GOLDEN_FOLDER, Golden
from tests.support.native_runner import NativeRunner
from tests.support.random_adapters import ADAPTERS, write_zoo_adapter
from tests.support.random_models import FAMILY_MODELS, TYPE_MODELS, file_digest, write_zoo_model

MIN_TOP1_SHARE = 0.99
MAX_FLOAT_KL = 1e-5  # f32 weights: what is left are llama.cpp's f16 keys and values
MAX_KL = 1.5e-3  # quantised weights: two independent roundings of the activations


def run(name: str, folder: Path) -> Agreement:
    golden = Golden.load(GOLDEN_FOLDER / f"{name}.npz")
    path = write_zoo_model(name, folder)
    assert file_digest(path) == golden.info["sha256"], (
        f"the writer no longer makes the {name} model that llama.cpp saw: run tests.support.regenerate_golden"
    )
    return compare_with_golden(golden, NativeRunner(path).logits)


@pytest.mark.parametrize("name", FAMILY_MODELS)
def test_family_agrees_with_llama_cpp(name: str, tmp_path: Path) -> None:
    agreement = run(name, tmp_path)
    print(agreement)
    assert agreement.num_clear > 1000
    assert agreement.top1_share >= MIN_TOP1_SHARE
    assert agreement.to_llama.kl < MAX_FLOAT_KL
    assert agreement.is_as_exact_as_llama, agreement


@pytest.mark.parametrize("name", TYPE_MODELS)
def test_tensor_type_agrees_with_llama_cpp(name: str, tmp_path: Path) -> None:
    agreement = run(f"type-{name}", tmp_path)
    print(agreement)
    assert agreement.num_clear > 1000
    assert agreement.top1_share >= MIN_TOP1_SHARE
    assert agreement.to_llama.kl < MAX_KL
    assert agreement.is_as_exact_as_llama, agreement


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_agrees_with_llama_cpp(name: str, tmp_path: Path) -> None:
    golden = Golden.load(GOLDEN_FOLDER / f"{name}.npz")
    base, adapter = write_zoo_model(ADAPTERS[name][0], tmp_path), write_zoo_adapter(name, tmp_path)
    assert file_digest(base) == golden.info["sha256"]
    assert file_digest(adapter) == golden.info["adapter_sha256"]
    agreement = compare_with_golden(golden, NativeRunner(base, adapter=adapter).logits)
    print(agreement)
    assert agreement.num_clear > 1000
    assert agreement.top1_share >= MIN_TOP1_SHARE
    assert agreement.to_llama.kl < (MAX_KL if "type" in name else MAX_FLOAT_KL)
    assert agreement.is_as_exact_as_llama, agreement
