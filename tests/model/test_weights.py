"""Loading: every tensor arrives, progress is told, the plan's figure holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corral.errors import UnsupportedModel
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.plan import packed_weight_bytes
from corral.model.tensor_type import TensorType
from corral.model.weights import load_model
from tests.support.gguf_writer import FAMILIES, TinyModel, write_tiny_gguf
from tests.support.models import model_path
from tests.support.native_runner import NativeRunner

# Neither widths nor the vocabulary are multiples of a tile.
ODD = TinyModel(hidden=96, intermediate=160, num_heads=3, num_kv_heads=1, head_dim=32)


@pytest.mark.parametrize("family", FAMILIES)
def test_progress_ends_at_all_bytes(family: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    with open_gguf(write_tiny_gguf(tmp_path / "tiny.gguf", replace(ODD, family=family))) as file:
        config = read_config(file)
        load_model(file, config, 2, lambda done, total: steps.append((done, total)))
        total = sum(file.tensors[name].num_bytes for name in config.tensor_roles)
    assert len(steps) == len(config.tensor_roles)
    assert steps == sorted(steps)
    assert steps[-1] == (total, total)


@pytest.mark.parametrize("tensor_type", list(TensorType), ids=lambda kind: kind.name)
def test_the_plans_weights_are_never_below_the_real_ones(tensor_type: TensorType, tmp_path: Path) -> None:
    model = replace(ODD if tensor_type.block_size < 256 else TinyModel(), tensor_type=tensor_type)
    with open_gguf(write_tiny_gguf(tmp_path / "tiny.gguf", model)) as file:
        config = read_config(file)
        planned = packed_weight_bytes(file, config)
        packed = load_model(file, config, 2).packed_bytes
    assert packed <= planned <= 1.01 * packed


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"])
def test_the_plan_holds_for_real_models(name: str) -> None:
    with open_gguf(model_path(name)) as file:
        config = read_config(file)
        planned = packed_weight_bytes(file, config)
        packed = load_model(file, config, 2).packed_bytes
    assert packed <= planned <= 1.01 * packed


def test_a_split_model_gives_the_same_logits(tmp_path: Path) -> None:
    whole = write_tiny_gguf(tmp_path / "whole.gguf", ODD)
    write_tiny_gguf(tmp_path / "split.gguf", ODD, split_max_tensors=5)
    parts = sorted(tmp_path.glob("split-*.gguf"))
    assert len(parts) > 2
    ids = [5, 300, 17, 9]
    np.testing.assert_array_equal(NativeRunner(whole).all_logits(ids), NativeRunner(parts[1]).all_logits(ids))


def test_sizes_the_core_does_not_compute_are_refused(tmp_path: Path) -> None:
    model = TinyModel(family="qwen3", hidden=32, intermediate=32, num_heads=1, num_kv_heads=1, head_dim=2048,
                      tensor_type=TensorType.F16, num_layers=1)  # fmt: skip
    fault = r"wide\.gguf: the native core refuses this model: head_dim is 2048"
    with (
        open_gguf(write_tiny_gguf(tmp_path / "wide.gguf", model)) as file,
        pytest.raises(UnsupportedModel, match=fault),
    ):
        load_model(file, read_config(file), 1)


def test_a_callers_own_error_passes_through(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise ValueError(f"stopped at {done} of {total}")

    with open_gguf(write_tiny_gguf(tmp_path / "tiny.gguf", ODD)) as file, pytest.raises(ValueError, match="stopped at"):
        load_model(file, read_config(file), 1, stop)
