"""Packed files that are cut, damaged, foreign or hostile: each is refused by name, and made again."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral.errors import InvalidModelFile
from corral.model.packed_cache import PackedCache
from corral.model.packed_file import PackedFile
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.native_runner import NativeRunner

IDS = [5, 300, 17, 9]
ROLE, LAYER, TYPE, ROWS, COLS, OFFSET, BYTES = range(7)
HEAD = struct.Struct("<8sIIQQ")


@dataclass(frozen=True)
class Sound:
    """A good file and what it is of."""

    model: Path
    name: str
    data: bytes
    logits: Any


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    folder = tmp_path_factory.mktemp("packed")
    model = write_tiny_gguf(folder / "tiny.gguf", TinyModel())
    cache = PackedCache(folder / "cache")
    logits = NativeRunner(model, cache=cache).all_logits(IDS)
    cache.wait()
    [path] = cache.folder.iterdir()
    return Sound(model, path.name, path.read_bytes(), logits)


def patched(data: bytes, offset: int, piece: bytes) -> bytes:
    return data[:offset] + piece + data[offset + len(piece) :]


def with_directory(data: bytes, raw: bytes) -> bytes:
    """The file with another directory, its head and checksum made right: what only somebody hostile writes."""
    magic, version, layout, begin, _ = HEAD.unpack_from(data)
    head = HEAD.pack(magic, version, layout, begin, len(raw))
    head += hashlib.sha256(head + raw).digest()
    return patched(data[:begin], 0, head) + raw


def edited(edit: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        begin = HEAD.unpack_from(data)[3]
        directory = json.loads(data[begin:])
        edit(directory)
        return with_directory(data, json.dumps(directory).encode())

    return change


def entry(column: int, value: Any) -> Callable[[bytes], bytes]:
    """The file with one number of its first matrix replaced."""
    return edited(lambda directory: directory["tensors"][0].__setitem__(column, value))


# name -> (what is done to the file, what the refusal says); None: the file itself is sound, but not of this model.
FAULTS: dict[str, tuple[Callable[[bytes], bytes], str | None]] = {
    "empty": (lambda data: b"", "it is empty"),
    "a few bytes": (lambda data: data[:100], "less than a head"),
    "cut by a byte": (lambda data: data[:-1], "its directory is"),
    "cut in a matrix": (lambda data: data[: len(data) // 2], "its directory is"),
    "longer": (lambda data: data + b"\0", "its directory is"),
    "no head yet": (lambda data: bytes(4096) + data[4096:], "instead of b'CORRALPK'"),
    "foreign": (lambda data: patched(data, 0, b"GGUF"), "instead of b'CORRALPK'"),
    "another format": (lambda data: patched(data, 8, struct.pack("<I", 2)), "it is of format 2"),
    "layout flipped": (lambda data: patched(data, 12, b"\xff"), "the checksum .* is wrong"),
    "digest flipped": (lambda data: patched(data, 40, bytes([data[40] ^ 1])), "the checksum .* is wrong"),
    "directory flipped": (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "the checksum .* is wrong"),
    "directory at the head": (lambda data: patched(data, 16, struct.pack("<QQ", 0, len(data))), "its directory is"),
    "offsets that wrap": (lambda data: patched(data, 16, struct.pack("<QQ", 2**64 - 1, 2)), "its directory is"),
    "a directory of 2^63": (lambda data: patched(data, 16, struct.pack("<QQ", 4096, 2**63)), "its directory is"),
    "no JSON": (lambda data: with_directory(data, b"{"), "no JSON"),
    "deep JSON": (lambda data: with_directory(data, b"[" * 200_000), "no JSON"),
    "a list": (lambda data: with_directory(data, b"[]"), "no JSON object"),
    "no tensors": (edited(lambda directory: directory.pop("tensors")), "KeyError"),
    "tensors of text": (edited(lambda directory: directory.update(tensors="abc")), "TypeError"),
    "a short entry": (edited(lambda directory: directory["tensors"][0].pop()), "TypeError"),
    "a role of a number": (entry(ROLE, 7), "of the wrong types"),
    "an offset of text": (entry(OFFSET, "4096"), "of the wrong types"),
    "an offset of truth": (entry(OFFSET, True), "of the wrong types"),
    "an offset of 0": (entry(OFFSET, 0), "lies elsewhere"),
    "an offset below 0": (entry(OFFSET, -4096), "lies elsewhere"),
    "an offset between pages": (entry(OFFSET, 4096 + 64), "lies elsewhere"),
    "an offset at the end": (entry(OFFSET, 1 << 40), "lies elsewhere"),
    "an offset beyond 2^64": (entry(OFFSET, 1 << 70), "lies elsewhere"),
    "bytes below 0": (entry(BYTES, -1), "lies elsewhere"),
    "bytes beyond the end": (entry(BYTES, 1 << 62), "lies elsewhere"),
    "fewer bytes": (entry(BYTES, 64), None),
    "a role that is not": (entry(ROLE, "attn"), None),
    "a layer that is not": (edited(lambda directory: directory["tensors"][1].__setitem__(LAYER, 99)), None),
    "another type": (entry(TYPE, 2), None),
    "no matrices": (edited(lambda directory: directory.update(tensors=[])), None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_file_is_refused_and_made_again(
    name: str, sound: Sound, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, fault = FAULTS[name]
    path = tmp_path / sound.name
    path.write_bytes(change(sound.data))
    assert path.read_bytes() != sound.data
    if fault is not None:
        with pytest.raises(InvalidModelFile, match=fault):
            PackedFile(path)
    cache = PackedCache(tmp_path)
    np.testing.assert_array_equal(NativeRunner(sound.model, cache=cache).all_logits(IDS), sound.logits)
    cache.wait()
    assert "made again" in caplog.text
    assert path.read_bytes() == sound.data
    assert [found.path for found in cache.entries()] == [path]


def test_no_file_at_all(sound: Sound, tmp_path: Path) -> None:
    """A folder or a pipe under the name of a packed file: neither is opened for long, and the load goes on."""
    os.mkfifo(tmp_path / sound.name)
    cache = PackedCache(tmp_path)
    np.testing.assert_array_equal(NativeRunner(sound.model, cache=cache).all_logits(IDS), sound.logits)
    cache.wait()
    assert (tmp_path / sound.name).read_bytes() == sound.data
