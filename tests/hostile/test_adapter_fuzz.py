"""Mutations of a sound adapter: refused by name, or loaded."""

from __future__ import annotations

import random
from pathlib import Path

from corral.errors import InvalidModelFile, UnsupportedModel
from corral.model.adapter import open_adapter
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from tests.support.fuzz_gguf import Seed, apply, random_mutations
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.random_adapters import TinyAdapter, write_tiny_adapter

BASE = TinyModel(num_layers=1, hidden=32, intermediate=32, num_heads=2, num_kv_heads=1, head_dim=16)
NUM_CASES = 600


def test_a_mutated_adapter_is_refused_by_name_or_sound(tmp_path: Path) -> None:
    with open_gguf(write_tiny_gguf(tmp_path / "base.gguf", BASE)) as file:
        config = read_config(file)
    data = write_tiny_adapter(tmp_path / "adapter.gguf", TinyAdapter(base=BASE, rank=2)).read_bytes()
    with open_gguf(tmp_path / "adapter.gguf") as file:
        header_end = min(info.offset for info in file.tensors.values())
    seed = Seed(data, tuple(range(header_end)))
    rng = random.Random(11)
    outcomes = set()
    path = tmp_path / "case.gguf"
    for _ in range(NUM_CASES):
        path.write_bytes(apply(seed.data, random_mutations(seed, rng)))
        try:
            with open_adapter(path, config) as adapter:
                loaded = adapter.load()
                assert loaded.num_bytes == adapter.num_bytes
            outcomes.add("sound")
        except InvalidModelFile as error:
            assert 0 <= error.offset <= path.stat().st_size
            outcomes.add("invalid")
        except UnsupportedModel:
            outcomes.add("unsupported")
    assert outcomes == {"sound", "invalid", "unsupported"}
