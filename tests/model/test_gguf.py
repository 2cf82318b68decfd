"""Sound files are read as gguf-py reads them, whole and in parts."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from corral._native import StringTable
from corral.errors import InvalidModelFile, ModelNotFound
from corral.model.gguf import open_gguf
from corral.model.tensor_type import TensorType
from tests.support.gguf_writer import FAMILIES, TinyModel, write_tiny_gguf
from tests.support.models import model_path
from tests.support.raw_gguf import F32, F64, I8, I16, I32, I64, U16, U64, gguf_file, key, tensor, u32


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_what_gguf_py_reads(family: str, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", TinyModel(family=family, rope_freqs=family == "llama"))
    assert_equal_to_gguf_py(path)


@pytest.mark.e2e
def test_reads_a_real_model_as_gguf_py_does() -> None:
    assert_equal_to_gguf_py(model_path("smollm2-135m"))


def assert_equal_to_gguf_py(path: Path) -> None:
    expected = gguf.GGUFReader(path)
    with open_gguf(path) as file:
        own_keys = {name for name in expected.fields if not name.startswith("GGUF.")}
        assert set(file.metadata) == own_keys
        for name in own_keys:
            value = file.metadata[name]
            own = value.to_list() if isinstance(value, StringTable) else value
            assert own == expected.fields[name].contents(), name
        assert list(file.tensors) == [tensor.name for tensor in expected.tensors]
        for theirs in expected.tensors:
            info = file.tensors[theirs.name]
            assert (info.type, info.shape) == (TensorType(theirs.tensor_type), tuple(theirs.shape.tolist()))
            assert (info.offset, info.num_bytes) == (theirs.data_offset, theirs.n_bytes)
            assert bytes(file.data(info)) == theirs.data.tobytes()
        assert file.version == 3
        assert file.num_bytes == path.stat().st_size


def test_block_sizes_are_ggmls() -> None:
    for tensor_type in TensorType:
        kind = gguf.GGMLQuantizationType(int(tensor_type))
        assert kind.name == tensor_type.name
        assert gguf.GGML_QUANT_SIZES[kind] == (tensor_type.block_size, tensor_type.block_bytes)


def test_version_2_and_every_number_type(tmp_path: Path) -> None:
    keys = [
        key(b"i8", I8, struct.pack("<b", -3)),
        key(b"u16", U16, struct.pack("<H", 65535)),
        key(b"i16", I16, struct.pack("<h", -300)),
        key(b"i32", I32, struct.pack("<i", -70000)),
        key(b"u64", U64, struct.pack("<Q", (1 << 64) - 1)),
        key(b"i64", I64, struct.pack("<q", -(1 << 63))),
        key(b"f32", F32, struct.pack("<f", 0.25)),
        key(b"f64", F64, struct.pack("<d", 1e-300)),
    ]
    path = tmp_path / "numbers.gguf"
    path.write_bytes(gguf_file(keys, version=2))
    with open_gguf(path) as file:
        assert file.version == 2
        assert file.metadata == {
            "i8": -3, "u16": 65535, "i16": -300, "i32": -70000, "u64": (1 << 64) - 1, "i64": -(1 << 63),
            "f32": 0.25, "f64": 1e-300,
        }  # fmt: skip
        assert file.tensors == {}


def test_alignment_of_the_file_is_used(tmp_path: Path) -> None:
    path = tmp_path / "aligned.gguf"
    keys = [key(b"general.alignment", 4, u32(128))]
    path.write_bytes(gguf_file(keys, [tensor()], bytes(range(128)), alignment=128))
    with open_gguf(path) as file:
        info = file.tensors["t"]
        assert info.offset % 128 == 0
        assert bytes(file.data(info)) == bytes(range(128))


def test_tensor_data_cannot_be_written_and_survives_release(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    with open_gguf(path) as file:
        info = file.tensors["output_norm.weight"]
        before = bytes(file.data(info))
        file.will_need(info)
        file.release(info)
        assert bytes(file.data(info)) == before
        with pytest.raises(TypeError):
            file.data(info)[0] = 1


def test_data_outlives_close_and_close_may_come_twice(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    file = open_gguf(path)
    values = np.frombuffer(file.data(file.tensors["output_norm.weight"]), np.float32)
    file.close()
    file.close()
    assert np.isfinite(values).all()


@pytest.fixture
def split(tmp_path: Path) -> list[Path]:
    """A tiny model in three parts, as gguf-py splits it."""
    whole = TinyModel(family="qwen2", hidden=64, intermediate=64, num_heads=2, head_dim=32, num_layers=1)
    path = write_tiny_gguf(tmp_path / "split.gguf", whole, split_max_tensors=6)
    assert not path.exists()
    return sorted(tmp_path.glob("split-*.gguf"))


def test_a_split_model_is_opened_whole_whichever_part_is_named(split: list[Path], tmp_path: Path) -> None:
    assert [path.name for path in split] == [f"split-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    whole = TinyModel(family="qwen2", hidden=64, intermediate=64, num_heads=2, head_dim=32, num_layers=1)
    expected = open_gguf(write_tiny_gguf(tmp_path / "whole.gguf", whole))
    for named in split:
        with open_gguf(named) as file:
            assert file.path == split[0]
            assert {info.part for info in file.tensors.values()} == {0, 1, 2}
            assert file.num_bytes == sum(path.stat().st_size for path in split)
            assert file.metadata["general.architecture"] == "qwen2"
            for name, info in expected.tensors.items():
                assert bytes(file.data(file.tensors[name])) == bytes(expected.data(info))
    expected.close()


def test_a_missing_part_is_named(split: list[Path]) -> None:
    split[1].unlink()
    with pytest.raises(InvalidModelFile, match=r"split-00002-of-00003\.gguf: .*part 2 of 3 is missing"):
        open_gguf(split[0])
    with pytest.raises(ModelNotFound):
        open_gguf(split[1])


def test_parts_that_were_renamed_are_refused(split: list[Path], tmp_path: Path) -> None:
    alone = split[0].rename(tmp_path / "model.gguf")
    with pytest.raises(InvalidModelFile, match=r"split\.count is 3, but its name says 1"):
        open_gguf(alone)
    alone.rename(split[0])
    middle = split[1].rename(tmp_path / "middle")
    split[2].rename(split[1])
    middle.rename(split[2])
    with pytest.raises(InvalidModelFile, match=r"00002-of-00003.*split\.no is 2, but its name says 1"):
        open_gguf(split[0])


def part_keys(number: int, count: int, num_tensors: int) -> list[bytes]:
    return [
        key(b"split.no", U16, struct.pack("<H", number)),
        key(b"split.count", U16, struct.pack("<H", count)),
        key(b"split.tensors.count", I32, struct.pack("<i", num_tensors)),
    ]


def write_parts(folder: Path, *parts: bytes) -> Path:
    for index, data in enumerate(parts, start=1):
        (folder / f"p-{index:05d}-of-{len(parts):05d}.gguf").write_bytes(data)
    return folder / f"p-00001-of-{len(parts):05d}.gguf"


def test_parts_that_disagree_are_refused(tmp_path: Path) -> None:
    block = bytes(128)
    first = gguf_file(part_keys(0, 2, 2), [tensor(b"t")], block)
    second = gguf_file(part_keys(1, 2, 2), [tensor(b"u")], block)
    with open_gguf(write_parts(tmp_path, first, second)) as file:
        assert [info.part for info in file.tensors.values()] == [0, 1]

    twice = gguf_file(part_keys(1, 2, 2), [tensor(b"t")], block)
    with pytest.raises(InvalidModelFile, match=r"tensor 't' is in p-00001-of-00002\.gguf too"):
        open_gguf(write_parts(tmp_path, first, twice))
    three = gguf_file(part_keys(0, 2, 3), [tensor(b"t")], block)
    with pytest.raises(InvalidModelFile, match=r"split\.tensors\.count is 3, but the parts hold 2"):
        open_gguf(write_parts(tmp_path, three, second))
    with pytest.raises(InvalidModelFile, match=r"says part 2 of 2, but it has no split\.count"):
        open_gguf(write_parts(tmp_path, first, gguf_file(tensors=[tensor(b"u")], data=block)))
    with pytest.raises(InvalidModelFile, match=r"split\.count must be a whole number"):
        open_gguf(write_parts(tmp_path, gguf_file([key(b"split.count", F32, struct.pack("<f", 2.0))]), second))
