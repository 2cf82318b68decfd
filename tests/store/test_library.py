from __future__ import annotations

import errno
import gc
import hashlib
import io
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.config import models_home, ollama_models
from corral.errors import CorralError, DigestMismatch, DiskFull, InvalidManifest, ModelNotFound
from corral.store.library import Library
from corral.store.manifest import CONFIG, MODEL, Layer, Manifest
from corral.store.names import parse_name
from corral.store.verify import verify
from tests.support.stores import add_model, blobs, quiet


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "ours")


@pytest.fixture
def both(tmp_path: Path) -> tuple[Library, Library]:
    """Ours, which sees Ollama's, and Ollama's own."""
    return Library(tmp_path / "ours", [tmp_path / "ollama"]), Library(tmp_path / "ollama")


def names(library: Library) -> list[str]:
    return sorted(str(model.name) for model in library.models())


# Names and manifests.


def test_a_model_is_found_in_any_case_and_lies_where_ollama_looks_for_it(library: Library) -> None:
    stored = add_model(library, "Someone/Model:Q4_K_M")
    path = library.root / "manifests/registry.ollama.ai/Someone/Model/Q4_K_M"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == stored.digest
    found = library.find(parse_name("someone/MODEL:q4_k_m"))
    assert found is not None
    assert str(found.name) == "Someone/Model:Q4_K_M"
    assert (found.digest, found.size, found.manifest) == (stored.digest, stored.size, stored.manifest)
    assert stored.size == 4 + len("be brief") + len('{"model_format":"gguf"}')
    assert library.find(parse_name("someone/model")) is None


def test_a_name_in_another_case_replaces_the_model(library: Library) -> None:
    add_model(library, "Model:Tag")
    add_model(library, "MODEL:TAG", b"other")
    assert names(library) == ["Model:Tag"]
    assert library.models()[0].to_local().path.read_bytes() == b"other"
    assert library.blob(digest_of(b"GGUF")) is None, "what only the old one needed is gone"


def test_a_pinned_name_finds_that_version_only(library: Library) -> None:
    stored = add_model(library, "m")
    assert library.find(parse_name(f"m@sha256:{stored.digest}")) == stored.__class__(
        parse_name(f"m@sha256:{stored.digest}"), *(getattr(stored, f) for f in stored.__slots__[1:])
    )
    assert library.find(parse_name(f"m@sha256:{stored.digest[:12]}")) is not None
    assert library.find(parse_name("m@sha256:" + "0" * 12)) is None
    with pytest.raises(ModelNotFound):
        library.delete(parse_name("m@sha256:" + "0" * 12))
    library.delete(parse_name(f"m@sha256:{stored.digest[:12]}"))
    assert names(library) == []


def test_models_come_newest_first_and_each_name_once(both: tuple[Library, Library]) -> None:
    ours, theirs = both
    for index, (where, name) in enumerate([(theirs, "b"), (ours, "a"), (ours, "c"), (theirs, "A")]):
        stored = add_model(where, name, bytes([index]))
        path = where.root.joinpath("manifests", *stored.name.parts)
        os.utime(path, (index, index))
    assert [str(model.name) for model in ours.models()] == ["c:latest", "a:latest", "b:latest"]
    assert [model.root for model in ours.models()] == [ours.root, ours.root, theirs.root]


def test_an_empty_store_is_looked_at_without_being_made(library: Library) -> None:
    assert library.models() == []
    assert library.find(parse_name("m")) is None
    assert library.blob("0" * 64) is None
    assert not library.root.exists()


def test_one_bad_manifest_hides_no_other(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    add_model(library, "good")
    bad = library.root / "manifests/registry.ollama.ai/library/bad/latest"
    bad.parent.mkdir()
    bad.write_bytes(b'{"schemaVersion": 2, "layers": 7}')
    (bad.parent / ".DS_Store").write_bytes(b"x")
    (library.root / "manifests/stray").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert names(library) == ["good:latest"]
    assert "layers is a number" in caplog.text
    with pytest.raises(InvalidManifest, match=rf"{bad}: layers is a number"):
        library.find(parse_name("bad"))
    library.delete(parse_name("bad"))
    assert library.find(parse_name("bad")) is None
    assert library.find(parse_name("good")) is not None


def test_symbolic_links_among_the_manifests_lead_nowhere(library: Library, tmp_path: Path) -> None:
    stored = add_model(library, "m")
    manifest = library.root.joinpath("manifests", *stored.name.parts)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "t").write_bytes(manifest.read_bytes())
    (manifest.parent.parent / "folder").symlink_to(outside)
    (manifest.parent / "file").symlink_to(outside / "t")
    assert names(library) == ["m:latest"]
    for name in ("folder:t", "m:file"):
        assert library.find(parse_name(name)) is None
        with pytest.raises(CorralError, match="is a symbolic link"):
            library.copy(parse_name("m"), parse_name(name))
        with pytest.raises(ModelNotFound):
            library.delete(parse_name(name))
    assert {path.name for path in outside.iterdir()} == {"t"}


def test_a_name_that_no_disk_can_hold_is_a_clear_error(library: Library) -> None:
    name = parse_name(f"{'h' * 300}/n/m")
    assert library.find(name) is None
    with pytest.raises(CorralError, match=r"cannot use the model folder.*too long"):
        add_model(library, name.given)


# Blobs.


def test_a_blob_is_stored_once(library: Library) -> None:
    assert library.add_blob(digest_of(b"abc"), [b"a", b"", b"bc"], 3)
    path = library.blob(digest_of(b"abc"))
    assert path is not None
    assert path.read_bytes() == b"abc"
    assert not library.add_blob(digest_of(b"abc").removeprefix("sha256:"), iter(()), 3)


def broken_off() -> Iterator[bytes]:
    yield b"ab"
    raise ConnectionResetError("gone")


def test_what_is_not_the_promised_blob_leaves_nothing(library: Library) -> None:
    wanted = digest_of(b"abc")
    with pytest.raises(DigestMismatch, match=f'digest mismatch, expected "{wanted}", got "{digest_of(b"abd")}"'):
        library.add_blob(wanted, [b"abd"])
    with pytest.raises(DigestMismatch, match="2 bytes have come; 3 are expected"):
        library.add_blob(wanted, [b"ab"], 3)
    with pytest.raises(DigestMismatch, match="are expected"):
        library.add_blob(wanted, iter(lambda: b"x" * 1000, b""), 3)  # it never ends
    with pytest.raises(ConnectionResetError):
        library.add_blob(wanted, broken_off(), 3)
    for digest in ("../x", "sha256:" + "g" * 64, "md5:" + "0" * 32, ""):
        with pytest.raises(CorralError, match="invalid digest format"):
            library.add_blob(digest, [b"abc"])
    assert blobs(library.root) == set()


def test_a_blob_that_lost_bytes_is_stored_again(library: Library) -> None:
    library.add_blob(digest_of(b"abc"), [b"abc"], 3)
    library.blob_target(digest_of(b"abc")).write_bytes(b"a")
    assert library.add_blob(digest_of(b"abc"), [b"abc"], 3)
    assert library.blob_target(digest_of(b"abc")).read_bytes() == b"abc"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_the_store_whole(
    number: int, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = add_model(library, "m")

    def full(*_args: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull, match=r"no room in .*corral store prune"):
            add_model(library, "m", b"new")
    assert library.find(parse_name("m")) == before
    assert verify(library, on_status=quiet) == []
    assert len(blobs(library.root)) == 3


def test_a_file_that_cannot_fit_is_not_begun(library: Library) -> None:
    size = shutil.disk_usage(library.root.parent).free * 2
    with pytest.raises(DiskFull, match="MB more are needed"):
        library.add_blob("0" * 64, broken_off(), size)


def test_a_downloaded_file_is_published_from_beside_its_place(library: Library) -> None:
    target = library.blob_target(digest_of(b"abc"))
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(b"abc")
    assert library.publish(partial, digest_of(b"abc")) == target
    assert blobs(library.root) == {target.name}


# Writing, copying, deleting.


def test_a_manifest_that_names_what_is_not_there_is_refused(library: Library) -> None:
    config = library.add_bytes(b"{}", CONFIG)
    with pytest.raises(CorralError, match=f"'m:latest' cannot be written: blob {digest_of(b'x')} is not in the store"):
        library.write(parse_name("m"), Manifest(config, (Layer(MODEL, digest_of(b"x"), 1),)))
    with pytest.raises(CorralError, match="has 2 bytes, not 3"):
        library.write(parse_name("m"), Manifest(config, (Layer(MODEL, config.digest, 3),)))
    assert names(library) == []


def test_a_copy_shares_blobs_which_stay_until_the_last_name_goes(library: Library) -> None:
    stored = add_model(library, "a")
    library.copy(parse_name("A"), parse_name("x/b:t"))
    library.copy(parse_name("a"), parse_name("a"))
    assert names(library) == ["a:latest", "x/b:t"]
    assert {model.digest for model in library.models()} == {stored.digest}
    library.delete(parse_name("a"))
    assert len(blobs(library.root)) == 3
    library.delete(parse_name("X/B:T"))
    assert blobs(library.root) == set()
    assert list((library.root / "manifests").iterdir()) == [], "no empty folders"
    with pytest.raises(ModelNotFound, match=r"^model 'a' not found$"):
        library.copy(parse_name("a"), parse_name("b"))
    with pytest.raises(ModelNotFound, match=r"^model 'a' not found$"):
        library.delete(parse_name("a"))


def test_ollamas_models_are_used_and_never_written(both: tuple[Library, Library]) -> None:
    ours, theirs = both
    add_model(theirs, "m")
    before = {path: path.stat().st_mtime_ns for path in theirs.root.rglob("*")}
    stored = ours.find(parse_name("m"))
    assert stored is not None
    assert stored.root == theirs.root
    assert stored.to_local().path.is_relative_to(theirs.root)
    with pytest.raises(
        CorralError, match=r"'m' is Ollama's, in .*ollama, which Corral only reads; `ollama rm m:latest`"
    ):
        ours.delete(parse_name("m"))
    ours.copy(parse_name("m"), parse_name("mine"))
    copied = ours.find(parse_name("mine"))
    assert copied is not None
    assert copied.root == ours.root
    assert copied.to_local().path.is_relative_to(theirs.root), "the blob is referenced, not copied"
    ours.delete(parse_name("mine"))
    assert {path: path.stat().st_mtime_ns for path in theirs.root.rglob("*")} == before
    assert blobs(ours.root) == set()


def test_deleting_spares_what_somebody_is_about_to_name(library: Library) -> None:
    add_model(library, "m", b"shared")
    other = Library(library.root)
    layer = other.add_bytes(b"shared", MODEL)  # it is there: nothing is written
    library.delete(parse_name("m"))
    other.write(parse_name("n"), Manifest(other.add_bytes(b"{}", CONFIG), (layer,)))
    assert other.models()[0].to_local().path.read_bytes() == b"shared"
    library.delete(parse_name("n"))
    assert library.blob(layer.digest) is None


def test_a_hold_ends_with_the_object_and_a_lock_with_its_block(library: Library) -> None:
    for index in range(2):
        stored = add_model(library, "m", b"data")
        other = Library(library.root)
        if index == 0:
            assert other.hold(digest_of(b"data"))
            library.delete(stored.name)
            assert library.blob(digest_of(b"data")) is not None
            del other
            gc.collect()
        else:
            with other.lock(digest_of(b"data"), lambda: None):
                library.delete(stored.name)
                assert library.blob(digest_of(b"data")) is not None
    add_model(library, "m", b"data")
    library.delete(parse_name("m"))
    assert blobs(library.root) == set()


def test_a_damaged_manifest_keeps_all_blobs(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    stored = add_model(library, "damaged", b"needed")
    add_model(library, "other", b"needed")
    library.root.joinpath("manifests", *stored.name.parts).write_bytes(b"{")
    library.delete(parse_name("other"))
    assert library.blob(digest_of(b"needed")) is not None
    assert "no blob is removed" in caplog.text


# Folders.


def test_the_environment_names_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CORRAL_MODELS", "OLLAMA_MODELS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "home"))
    assert models_home() == tmp_path / "home/models"
    assert tmp_path / ".ollama/models" not in ollama_models()
    (tmp_path / ".ollama/models").mkdir(parents=True)
    assert tmp_path / ".ollama/models" in ollama_models()
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    monkeypatch.setenv("CORRAL_MODELS", "~/mine")
    assert Library.open().roots == (tmp_path / "mine", tmp_path)
    monkeypatch.setenv("CORRAL_MODELS", str(tmp_path))
    assert Library.open().roots == (tmp_path,), "what is ours to write is not read twice"


def test_a_folder_that_cannot_be_written_is_told(library: Library) -> None:
    library.root.write_bytes(b"a file")
    assert library.models() == []
    with pytest.raises(CorralError, match="cannot use the model folder"):
        add_model(library, "m")


def test_a_stream_of_any_kind_is_stored(library: Library) -> None:
    stream = io.BytesIO(b"x" * 100_000)
    assert library.add_blob(digest_of(b"x" * 100_000), iter(lambda: stream.read(4096), b""))
