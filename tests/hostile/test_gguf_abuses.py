"""Every abuse of the table is refused at once, with file, offset and fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.errors import InvalidModelFile, ModelNotFound
from corral.model import gguf_cursor
from corral.model.gguf import open_gguf
from tests.hostile.gguf_abuses import ABUSES, BLOCK, ELEMENT_COUNT, ELEMENTS, Abuse, one_key
from tests.support.raw_gguf import ARRAY, STRING, U8, U64, array, gguf_file, key, string, tensor, u64


@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.name)
def test_abuse_is_refused_with_offset_and_fault(abuse: Abuse, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(abuse.data)
    with pytest.raises(abuse.error) as caught:
        open_gguf(path)
    assert abuse.fault in str(caught.value)
    assert str(path) in str(caught.value)
    if isinstance(caught.value, InvalidModelFile):
        assert caught.value.offset == abuse.offset


def test_the_table_names_each_abuse_once() -> None:
    assert len({(abuse.name, abuse.data) for abuse in ABUSES}) == len(ABUSES)


def test_a_sound_file_beside_the_abuses_opens(tmp_path: Path) -> None:
    path = tmp_path / "sound.gguf"
    path.write_bytes(gguf_file([key(b"k", ARRAY, array(U8, 3, b"\1\2\3"))], [tensor()], BLOCK))
    with open_gguf(path) as file:
        assert file.metadata == {"k": [1, 2, 3]}
        assert bytes(file.data(file.tensors["t"])) == BLOCK


def test_a_claim_that_a_sparse_file_backs_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    path.write_bytes(one_key(ARRAY, array(U64, 1 << 29)))
    os.truncate(path, ELEMENTS + (8 << 29))  # 4 GiB of holes: the claim fits into the file
    with pytest.raises(InvalidModelFile, match="a file may have 4194304 in all") as caught:
        open_gguf(path)
    assert caught.value.offset == ELEMENT_COUNT


def test_a_header_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_cursor, "MAX_HEADER_BYTES", 4096)
    path = tmp_path / "long.gguf"
    keys = [key(b"%d" % index, STRING, string(bytes(1000))) for index in range(10)]
    path.write_bytes(gguf_file(keys))
    with pytest.raises(InvalidModelFile, match="header longer than 4096 bytes"):
        open_gguf(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"there is no file .*absent\.gguf"):
        open_gguf(tmp_path / "absent.gguf")
    with pytest.raises(InvalidModelFile, match="folder or device"):
        open_gguf(tmp_path)
    with pytest.raises(InvalidModelFile, match="cannot be read"):
        open_gguf("a\0b.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(InvalidModelFile, match="folder or device"):
        open_gguf(tmp_path / "pipe.gguf")


def test_text_that_is_not_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "latin.gguf"
    path.write_bytes(gguf_file([key(b"k", ARRAY, array(STRING, 1, string(b"caf\xe9")))]))
    with open_gguf(path) as file:
        assert file.metadata["k"][0].encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(one_key(ARRAY, array(STRING, 1, u64(99))))
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        with pytest.raises(InvalidModelFile):
            open_gguf(path)
    assert set(Path("/proc/self/fd").iterdir()) == before
