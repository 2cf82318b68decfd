"""Packed weights on disk: a second load maps them, and nothing wrong with them ever harms a load."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from corral import _native
from corral.config import EngineConfig
from corral.engine.batch import Batch
from corral.engine.embedding_runner import EmbeddingRunner
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.packed_cache import PackedCache
from corral.model.packed_file import PackedFile
from corral.model.plan import EmbeddingShape, packed_weight_bytes
from corral.model.tensor_type import TensorType
from corral.model.weights import load_model
from tests.support.encoder_writer import ENCODERS, TinyEncoder, write_tiny_encoder
from tests.support.gguf_writer import FAMILIES, TinyModel, write_tiny_gguf
from tests.support.native_runner import NativeRunner

ODD = TinyModel(hidden=96, intermediate=160, num_heads=3, num_kv_heads=1, head_dim=32)
IDS = [5, 300, 17, 9]


def logits(path: Path, cache: PackedCache | None) -> npt.NDArray[np.float32]:
    """Of one load; what it writes is on the disk afterwards."""
    found = NativeRunner(path, cache=cache).all_logits(IDS)
    if cache is not None:
        cache.wait()
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf", ODD)


@pytest.fixture
def cache(tmp_path: Path) -> PackedCache:
    return PackedCache(tmp_path / "packed")


@pytest.fixture
def packed_roles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roles that native models have been given as tensors of the GGUF file, as they come."""
    roles: list[str] = []

    class Recorder(_native.Model):
        def add_tensor(self, role: str, *others: Any) -> None:
            roles.append(role)
            super().add_tensor(role, *others)

    monkeypatch.setattr(_native, "Model", Recorder)
    return roles


def only_file(cache: PackedCache) -> Path:
    [path] = cache.folder.iterdir()
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_load_maps_and_gives_the_same_bits(
    family: str, tmp_path: Path, cache: PackedCache, packed_roles: list[str]
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", replace(ODD, family=family))
    packed = logits(path, None)
    np.testing.assert_array_equal(logits(path, cache), packed)
    assert "ffn_down" in packed_roles
    packed_roles.clear()
    np.testing.assert_array_equal(logits(path, cache), packed)
    assert packed_roles
    assert all("norm" in role or "bias" in role for role in packed_roles), "a matrix was packed again"


@pytest.mark.parametrize("tensor_type", list(TensorType), ids=lambda kind: kind.name)
def test_every_type_is_the_same_mapped(tensor_type: TensorType, tmp_path: Path, cache: PackedCache) -> None:
    tiny = replace(ODD if tensor_type.block_size < 256 else TinyModel(), tensor_type=tensor_type)
    path = write_tiny_gguf(tmp_path / "tiny.gguf", tiny)
    packed = logits(path, cache)
    np.testing.assert_array_equal(logits(path, cache), packed)


def test_it_is_the_file_that_is_computed_with(model: Path, cache: PackedCache) -> None:
    """The core takes the content as it is: it is numbers only. `verify` tells that they are others now."""
    packed = logits(model, cache)
    path = only_file(cache)
    tensor = PackedFile(path).tensors["ffn_down", 1]
    data = bytearray(path.read_bytes())
    data[tensor.offset : tensor.offset + tensor.num_bytes] = bytes(tensor.num_bytes)
    replace_file(path, bytes(data))
    assert not np.array_equal(logits(model, cache), packed)
    with pytest.raises(Exception, match=rf"at byte {tensor.offset}: the bytes of ffn_down of layer 1 have changed"):
        PackedFile(path).verify()


def test_a_split_and_copied_model_is_known_by_its_content(tmp_path: Path, cache: PackedCache) -> None:
    write_tiny_gguf(tmp_path / "split.gguf", ODD, split_max_tensors=5)
    parts = sorted(tmp_path.glob("split-*.gguf"))
    packed = logits(parts[0], cache)
    before = only_file(cache).stat().st_ino
    (tmp_path / "elsewhere").mkdir()
    for part in parts:
        shutil.copy2(part, tmp_path / "elsewhere" / part.name)
    np.testing.assert_array_equal(logits(tmp_path / "elsewhere" / parts[1].name, cache), packed)
    assert only_file(cache).stat().st_ino == before


def test_a_model_that_was_written_since_is_packed_anew(model: Path, cache: PackedCache) -> None:
    """One byte in the middle of a tensor, on no page that the digest reads, with the size as it was."""
    big = write_tiny_gguf(model, replace(ODD, hidden=512, head_dim=512, intermediate=2048))
    first = logits(big, cache)
    before = PackedFile(only_file(cache))
    data = bytearray(big.read_bytes())
    middle = len(data) * 3 // 5
    data[middle : middle + 64] = bytes(64)
    big.write_bytes(data)
    os.utime(big, ns=(0, before.source.mtimes_ns[0] + 1))
    changed = logits(big, cache)
    assert not np.array_equal(changed, first)
    np.testing.assert_array_equal(changed, logits(big, None))
    assert PackedFile(only_file(cache)).source.mtimes_ns == (before.source.mtimes_ns[0] + 1,)


def test_other_weights_under_the_same_header_are_another_file(tmp_path: Path, cache: PackedCache) -> None:
    one, two = (write_tiny_gguf(tmp_path / f"{seed}.gguf", replace(ODD, seed=seed)) for seed in (1, 2))
    os.utime(two, ns=(0, one.stat().st_mtime_ns))
    assert one.stat().st_size == two.stat().st_size
    logits(one, cache)
    np.testing.assert_array_equal(logits(two, cache), logits(two, None))
    assert len(list(cache.folder.iterdir())) == 2


def test_another_layout_is_packed_anew(model: Path, cache: PackedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = _native.packed_layout()
    with monkeypatch.context() as patch:
        patch.setattr(_native, "packed_layout", lambda: layout + 1)
        logits(model, cache)
    assert PackedFile(only_file(cache)).layout == layout + 1
    np.testing.assert_array_equal(logits(model, cache), logits(model, None))
    assert PackedFile(only_file(cache)).layout == layout


def test_a_folder_that_cannot_be_written_costs_a_warning(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")  # for root, permissions forbid nothing; a file in the folder's place does
    cache = PackedCache(tmp_path / "file" / "packed")
    np.testing.assert_array_equal(logits(model, cache), logits(model, None))
    assert "are not kept" in caplog.text


def test_a_read_only_folder_is_mapped_from(model: Path, cache: PackedCache, packed_roles: list[str]) -> None:
    logits(model, cache)
    only_file(cache).chmod(stat.S_IRUSR)
    cache.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    packed_roles.clear()
    logits(model, cache)
    assert "ffn_down" not in packed_roles
    cache.folder.chmod(stat.S_IRWXU)


def test_a_disk_that_fills_up_costs_a_warning(
    model: Path, cache: PackedCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_descriptor: int, data: Any, offset: int) -> int:
        raise OSError(28, f"No space left on device for {len(data)} bytes at {offset}")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        packed = logits(model, cache)
    np.testing.assert_array_equal(packed, logits(model, None))
    assert "No space left on device" in caplog.text
    assert list(cache.folder.iterdir()) == []


def test_a_load_that_fails_leaves_nothing(model: Path, cache: PackedCache) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        NativeRunner(model, cache=cache, progress=stop)
    cache.wait()
    assert list(cache.folder.iterdir()) == []


def test_what_a_killed_writer_left_is_removed(model: Path, cache: PackedCache) -> None:
    cache.folder.mkdir()
    (cache.folder / ".abc.tmp").write_bytes(b"half of a file")
    os.utime(cache.folder / ".abc.tmp", (1000, 1000))
    logits(model, cache)
    assert only_file(cache).suffix == ".packed"


def test_the_one_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = PackedCache(tmp_path / "packed")
    paths = [write_tiny_gguf(tmp_path / f"{seed}.gguf", replace(ODD, seed=seed)) for seed in range(3)]
    for age, path in enumerate(paths[:2]):
        logits(path, cache)
        newest = max(cache.folder.iterdir(), key=lambda each: each.stat().st_mtime_ns)
        os.utime(newest, (1000 + age, 1000 + age))
    logits(paths[0], cache)  # used now, though it was written first
    size = max(entry.num_bytes for entry in cache.entries())
    capped = PackedCache(cache.folder, max_bytes=int(2.5 * size))
    kept = cache.entries()[0].path
    logits(paths[2], capped)
    entries = cache.entries()
    assert len(entries) == 2
    assert kept in {entry.path for entry in entries}


@pytest.mark.parametrize("limit", ["cap", "disk"])
def test_without_room_nothing_is_kept(
    limit: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = PackedCache(tmp_path / "packed", max_bytes=1 << 10 if limit == "cap" else None)
    if limit == "disk":  # 10 % of it is free, and that stays so

        class Usage:
            total, free = 100 << 30, 10 << 30

        monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage)
    logits(model, cache)
    assert list(cache.folder.iterdir()) == []
    assert "are not kept: that is more than" in caplog.text


# Loads once it is told to, and writes the logits to standard output.
LOADER = """
import sys
from pathlib import Path
from corral.model.packed_cache import PackedCache
from tests.support.native_runner import NativeRunner
model, folder = map(Path, sys.argv[1:3])
print("ready", flush=True)
sys.stdin.readline()
cache = PackedCache(folder)
logits = NativeRunner(model, cache=cache).all_logits([int(each) for each in sys.argv[3:]])
cache.wait()
sys.stdout.buffer.write(logits.tobytes())
"""


def test_two_processes_at_once(model: Path, cache: PackedCache) -> None:
    command = [sys.executable, "-c", LOADER, str(model), str(cache.folder), *map(str, IDS)]
    root = Path(__file__).parent.parent.parent
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    packed = logits(model, None).tobytes()
    assert [process.communicate()[0] for process in processes] == [packed, packed]
    PackedFile(only_file(cache)).verify()


def test_clear_leaves_the_mapped_alone(model: Path, cache: PackedCache) -> None:
    packed = logits(model, cache)
    runner = NativeRunner(model, cache=cache)
    assert [entry.model for entry in cache.clear()] == ["tiny llama"]
    assert list(cache.folder.iterdir()) == []
    np.testing.assert_array_equal(runner.all_logits(IDS), packed)


def replace_file(path: Path, data: bytes) -> None:
    """As the cache does it: a file that somebody has mapped is never changed."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.replace(path)


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_is_the_same_mapped(family: str, tmp_path: Path, packed_roles: list[str]) -> None:
    """Its fused tensor is kept by its parts."""
    path = write_tiny_encoder(
        tmp_path / "encoder.gguf", TinyEncoder(family=family, tensor_type=TensorType.Q8_0, fused=True)
    )
    cache = PackedCache(tmp_path / "packed")
    found = []
    for _ in range(2):
        packed_roles.clear()
        with open_gguf(path) as file:
            config = read_config(file)
            model = load_model(file, config, 1, cache=cache)
            assert packed_weight_bytes(file, config) >= model.packed_bytes
        cache.wait()
        shape = EmbeddingShape.of(config, EngineConfig(), 512)
        found.append((list(packed_roles), hidden_states(EmbeddingRunner(model, shape))))
    assert "attn_k" in found[0][0]
    assert all("norm" in role or "bias" in role for role in found[1][0]), "a matrix was packed again"
    np.testing.assert_array_equal(found[1][1], found[0][1])


def hidden_states(runner: EmbeddingRunner) -> npt.NDArray[np.float32]:
    """Of 40 tokens."""
    ids = np.arange(10, 50, dtype=np.int32)
    offsets, starts = np.array([0, 40], np.int32), np.zeros(1, np.int32)
    return runner.compute(Batch(ids, offsets, starts, np.array([[5, 0, 3]], np.int32), np.arange(40, dtype=np.int32)))
