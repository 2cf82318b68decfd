from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from corral.store import catalog
from corral.store.catalog import Artifact, CatalogEntry
from corral.store.library import Library
from corral.store.manifest import CONFIG, MODEL, Manifest
from corral.store.names import parse_name
from corral.store.prune import prune
from corral.store.status import Status
from corral.store.verify import verify
from tests.support.stores import add_model, blobs, quiet


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "ours")


def faults(library: Library) -> list[str]:
    return [str(problem) for problem in verify(library, on_status=quiet)]


@pytest.fixture
def hours_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies there now is more than an hour old."""
    now = time.time()
    monkeypatch.setattr("corral.store.prune.time.time", lambda: now + 2 * 3600)


# verify


def test_a_whole_store_is_read_with_progress(library: Library) -> None:
    assert verify(library, on_status=quiet) == []
    add_model(library, "m", b"x" * 1000)
    seen: list[Status] = []
    assert verify(library, on_status=seen.append) == []
    digest = digest_of(b"x" * 1000)
    assert Status(f"verifying {digest[:12]}", f"sha256:{digest}", 1000, 1000) in seen
    assert len({status.digest for status in seen}) == 3


def test_damage_is_named_with_the_models_that_need_the_file(library: Library) -> None:
    add_model(library, "a", b"shared")
    add_model(library, "b", b"shared", system="another")
    path = library.blob_target(digest_of(b"shared"))
    path.write_bytes(b"shAred")
    [fault] = faults(library)
    assert fault.startswith(f"{path}: it is damaged: its bytes have the digest sha256:{digest_of(b'shAred')}")
    assert fault.endswith("(needed by a:latest, b:latest)")
    path.write_bytes(b"shared!")
    assert f"{path}: it has 7 bytes; its manifest says 6 (needed by a:latest, b:latest)" in faults(library)
    path.unlink()
    assert faults(library) == [f"{path}: it is missing (needed by a:latest, b:latest)"]


def test_bad_manifests_and_foreign_files_are_named(library: Library) -> None:
    add_model(library, "m")
    manifests = library.root / "manifests/registry.ollama.ai/library/m"
    (manifests / "bad").write_bytes(b"{")
    (manifests / ".DS_Store").write_bytes(b"x")
    (manifests / "deep").mkdir()
    (library.root / "manifests/link").symlink_to("/etc")
    (library.root / "blobs/sha256-short").write_bytes(b"x")
    (library.root / "stray.txt").write_bytes(b"x")
    (library.root / f"blobs/sha256-{'0' * 64}.partial-0").write_bytes(b"under way")
    found = faults(library)
    assert any(fault.startswith(f"{manifests}/bad: it is not JSON") and "m:bad" in fault for fault in found)
    foreign = {fault.partition(": ")[0] for fault in found if fault.endswith("it is no file of the store")}
    expected = {"manifests/link", "blobs/sha256-short", "stray.txt"}
    inside = {"manifests/registry.ollama.ai/library/m/.DS_Store", "manifests/registry.ollama.ai/library/m/deep"}
    assert {Path(path).relative_to(library.root).as_posix() for path in foreign} == expected | inside
    assert len(found) == 6


def test_a_file_in_place_is_read_and_a_mere_touch_forgiven(library: Library, tmp_path: Path) -> None:
    file = tmp_path / "f.gguf"
    file.write_bytes(b"GGUF")
    layer = library.link_file(file, MODEL, quiet)
    stored = library.write(parse_name("m"), Manifest(library.add_bytes(b"{}", CONFIG), (layer,)))
    assert faults(library) == []
    os.utime(file, ns=(1, 1))
    assert library.blob(layer.digest) is None
    assert faults(library) == []
    assert stored.to_local().path == file
    file.write_bytes(b"FGUG")
    [fault] = faults(library)
    assert f"the file {file}, used in place, has been written since (needed by m:latest)" in fault
    file.unlink()
    [fault] = faults(library)
    assert f"the file {file}, used in place, is gone (needed by m:latest)" in fault


def test_ollamas_blobs_are_hashed_where_a_model_of_ours_needs_them(tmp_path: Path) -> None:
    theirs = Library(tmp_path / "ollama")
    ours = Library(tmp_path / "ours", [theirs.root])
    add_model(theirs, "m", b"theirs")
    path = theirs.blob_target(digest_of(b"theirs"))
    path.write_bytes(b"thEirs")
    (theirs.root / "stray").touch()
    assert faults(ours) == [], "what Corral does not use is Ollama's to look after"
    ours.copy(parse_name("m"), parse_name("n"))
    [fault] = faults(ours)
    assert fault.startswith(f"{path}: it is damaged")
    path.unlink()
    assert len(faults(ours)) == 1
    assert "needed by n:latest, m:latest" in faults(ours)[0]


# prune


@pytest.mark.usefixtures("hours_later")
def test_what_nothing_needs_goes_and_the_rest_stays(library: Library) -> None:
    add_model(library, "m")
    before = blobs(library.root)
    unused = library.blob_target(digest_of(b"unused" * 1000))
    unused.write_bytes(b"unused" * 1000)
    partial = unused.with_name(f"sha256-{'1' * 64}.partial")
    partial.write_bytes(b"part")
    wheels = unused.with_name(f"sha256-{'2' * 64}.joining.wheels")
    wheels.mkdir()
    (wheels / "a.whl").write_bytes(b"wheel")
    scratch = library.root / "manifests/registry.ollama.ai/library/m/.partial-0123"
    scratch.write_bytes(b"{")
    paths = {unused, partial, wheels, scratch}
    told = prune(library, dry_run=True)
    assert set(told.paths) == paths
    assert told.bytes >= 6000
    assert all(path.exists() for path in paths)
    assert prune(library, dry_run=False) == told
    assert not any(path.exists() for path in paths)
    assert blobs(library.root) == before
    assert prune(library, dry_run=False).paths == ()
    assert {path.name for path in library.root.iterdir()} == {"manifests", "blobs", "locks", "holds"}


def test_what_is_young_stays(library: Library) -> None:
    library.add_bytes(b"for a model that is being made", MODEL)
    fresh = Library(library.root)
    assert prune(fresh, dry_run=True).paths == ()
    assert prune(fresh, dry_run=False).paths == ()
    assert len(blobs(library.root)) == 1


@pytest.mark.usefixtures("hours_later")
def test_what_is_under_way_stays_however_old(library: Library) -> None:
    layer = library.add_bytes(b"held", MODEL)
    partial = library.blob_target("3" * 64).with_name(f"sha256-{'3' * 64}.partial")
    partial.write_bytes(b"part")
    other = Library(library.root)
    with library.lock("3" * 64, lambda: None):
        for dry_run in (True, False):
            assert prune(other, dry_run=dry_run).paths == ()
    assert library.blob(layer.digest) is not None
    assert prune(other, dry_run=False).paths == (partial,)


@pytest.mark.usefixtures("hours_later")
def test_a_catalog_model_without_manifest_stays(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = Artifact("m.gguf", 3, digest_of(b"old"))
    monkeypatch.setattr(catalog, "CATALOG", (CatalogEntry("toy", ("latest",), "llama", "MIT", artifact),))
    path = library.blob_target(artifact.sha256)
    path.write_bytes(b"old")
    assert prune(library, dry_run=False).paths == ()
    assert library.blob(artifact.sha256) == path


@pytest.mark.usefixtures("hours_later")
def test_the_link_goes_and_the_file_in_place_stays(library: Library, tmp_path: Path) -> None:
    file = tmp_path / "f.gguf"
    file.write_bytes(b"GGUF")
    layer = Library(library.root).link_file(file, MODEL, quiet)
    assert prune(library, dry_run=False).paths == (library.blob_target(layer.digest),)
    assert file.exists()
    assert list((library.root / "links").iterdir()) == []


@pytest.mark.usefixtures("hours_later")
def test_a_damaged_manifest_keeps_all_blobs(library: Library) -> None:
    stored = add_model(library, "m")
    library.root.joinpath("manifests", *stored.name.parts).write_bytes(b"{")
    assert prune(library, dry_run=False).paths == ()
    assert len(blobs(library.root)) == 3


def test_a_store_that_is_not_there_is_not_made(library: Library) -> None:
    assert prune(library, dry_run=False).paths == ()
    assert not library.root.exists()
