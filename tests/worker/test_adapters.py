"""The cache of adapters: one load for all who ask, room made among those that nobody uses."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from corral.errors import InsufficientMemory, InvalidModelFile, ModelNotFound, QueueFull
from corral.model import adapter as adapter_module
from corral.model.architectures import read_config
from corral.model.config import ModelConfig
from corral.model.gguf import open_gguf
from corral.worker.adapters import AdapterCache
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.random_adapters import TinyAdapter, write_tiny_adapter

BASE = TinyModel(hidden=64, intermediate=96, num_heads=2, num_kv_heads=1, head_dim=32)
ADAPTER = TinyAdapter(base=BASE, roles=("attn_q",))
SIZE = BASE.num_layers * 4 * ADAPTER.rank * 128


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    with open_gguf(write_tiny_gguf(tmp_path_factory.mktemp("base") / "base.gguf", BASE)) as file:
        return read_config(file)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [str(write_tiny_adapter(tmp_path / f"{i}.gguf", replace(ADAPTER, seed=i))) for i in range(3)]


def test_an_adapter_is_loaded_once(config: ModelConfig, paths: list[str], tmp_path: Path) -> None:
    cache = AdapterCache(config, 10 * SIZE)
    (tmp_path / "link.gguf").symlink_to(paths[0])
    leases = [cache.acquire(path) for path in (paths[0], paths[0], str(tmp_path / "link.gguf"))]
    assert len({id(lease.adapter) for lease in leases}) == 1
    assert (cache.num_adapters, cache.num_bytes) == (1, SIZE)
    for lease in leases:
        lease.release()
        lease.release()
    assert cache.acquire(paths[0]).adapter is leases[0].adapter


def test_the_least_recently_used_makes_room(config: ModelConfig, paths: list[str]) -> None:
    cache = AdapterCache(config, 2 * SIZE)
    first, second = (cache.acquire(path) for path in paths[:2])
    first.release()
    second.release()
    cache.acquire(paths[0]).release()
    cache.acquire(paths[2]).release()
    assert (cache.num_adapters, cache.num_bytes) == (2, 2 * SIZE)
    assert cache.acquire(paths[0]).adapter is first.adapter
    assert cache.acquire(paths[1]).adapter is not second.adapter


def test_what_is_in_use_stays(config: ModelConfig, paths: list[str]) -> None:
    cache = AdapterCache(config, 2 * SIZE)
    first, second = (cache.acquire(path) for path in paths[:2])
    with pytest.raises(QueueFull, match="those in use take") as caught:
        cache.acquire(paths[2])
    assert caught.value.retry_after_s > 0
    assert cache.num_adapters == 2
    second.release()
    cache.acquire(paths[2])
    assert cache.acquire(paths[0]).adapter is first.adapter


def test_one_that_is_too_large_is_refused_and_costs_nobody_a_place(config: ModelConfig, paths: list[str]) -> None:
    cache = AdapterCache(config, SIZE)
    kept = cache.acquire(paths[0])
    kept.release()
    large = write_tiny_adapter(Path(paths[0]).with_name("large.gguf"), replace(ADAPTER, rank=8))
    with pytest.raises(InsufficientMemory, match="adapter_max_bytes"):
        cache.acquire(str(large))
    assert cache.acquire(paths[0]).adapter is kept.adapter


def test_a_file_that_changed_is_another_adapter(config: ModelConfig, paths: list[str]) -> None:
    cache = AdapterCache(config, 10 * SIZE)
    before = cache.acquire(paths[0])
    write_tiny_adapter(Path(paths[0]), replace(ADAPTER, seed=99))
    os.utime(paths[0], ns=(1, 1))
    after = cache.acquire(paths[0])
    assert after.adapter.digest != before.adapter.digest
    assert cache.num_adapters == 2


def test_a_failure_is_told_and_tried_anew(config: ModelConfig, tmp_path: Path) -> None:
    cache = AdapterCache(config, 10 * SIZE)
    path = tmp_path / "late.gguf"
    with pytest.raises(ModelNotFound, match=r"late\.gguf"):
        cache.acquire(str(path))
    with pytest.raises(InvalidModelFile, match="cannot be read"):
        cache.acquire("nul\0byte")
    path.write_bytes(b"GGUF")
    os.utime(path, ns=(1, 1))
    with pytest.raises(InvalidModelFile):
        cache.acquire(str(path))
    assert cache.num_adapters == 0
    write_tiny_adapter(path, ADAPTER)
    assert cache.acquire(str(path)).adapter.num_bytes == SIZE


def test_all_who_ask_while_it_loads_get_the_same(
    config: ModelConfig, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, may_load, has_begun = [], threading.Event(), threading.Event()
    load = adapter_module.AdapterFile.load

    def slow_load(self: adapter_module.AdapterFile) -> adapter_module.LoadedAdapter:
        loads.append(1)
        has_begun.set()
        assert may_load.wait(60)
        return load(self)

    monkeypatch.setattr(adapter_module.AdapterFile, "load", slow_load)
    cache = AdapterCache(config, 10 * SIZE)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(cache.acquire(paths[0]).adapter)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert has_begun.wait(60)
    may_load.set()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(found) == 4
    assert len({id(adapter) for adapter in found}) == 1
