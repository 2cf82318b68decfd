from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from corral.store.library import Library
from tests.support.stores import add_model

Corral = Callable[..., CompletedProcess[bytes]]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A store that this process and those it starts use, and a folder of Ollama's."""
    (tmp_path / "ollama").mkdir()
    monkeypatch.setenv("CORRAL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    return Library.open()


def test_the_path_is_told(corral: Corral, library: Library) -> None:
    assert corral("store", "path").stdout.decode() == f"{library.root}\n"
    found = json.loads(corral("store", "path", "--json").stdout)
    assert found == {"path": str(library.root), "read_only": [str(library.others[0])]}
    assert not library.root.exists()


def test_a_whole_store_verifies(corral: Corral, library: Library) -> None:
    assert corral("store", "verify").stdout.decode() == f"{library.root} is whole: 0 models\n"
    add_model(library, "m")
    done = corral("store", "verify")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{library.root} is whole: 1 models\n"
    assert json.loads(corral("store", "verify", "--json").stdout) == {"path": str(library.root), "problems": []}


def test_a_problem_is_named_and_is_exit_code_1(corral: Corral, library: Library) -> None:
    stored = add_model(library, "m")
    path = library.blob_target(stored.manifest.layers[0].digest)
    path.write_bytes(b"FUGG")
    (library.root / "red \x1b[31m").touch()
    done = corral("store", "verify")
    assert done.returncode == 1
    assert f"{path}: it is damaged" in done.stdout.decode()
    assert "red ?[31m: it is no file of the store" in done.stdout.decode()
    assert done.stderr.decode() == f"Error: the store {library.root} has problems: 2\n"
    done = corral("store", "verify", "--json")
    assert done.returncode == 1
    assert [problem["models"] for problem in json.loads(done.stdout)["problems"]] == [["m:latest"], []]


def test_prune_tells_what_it_removes(corral: Corral, library: Library) -> None:
    add_model(library, "m")
    link = library.root / "links" / f"sha256-{'0' * 64}"
    link.parent.mkdir()
    link.write_bytes(b"{}")
    done = corral("store", "prune")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"0 removed, 0.0 MB\n", "it is younger than an hour"
    found = json.loads(corral("store", "prune", "--dry-run", "--json").stdout)
    assert found == {"dry_run": True, "paths": [], "bytes": 0}
    assert link.exists()


def test_a_folder_that_is_a_file_is_one_line(corral: Corral, library: Library) -> None:
    library.root.mkdir()
    (library.root / "locks").write_bytes(b"")
    done = corral("store", "prune")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: cannot use the model folder")
    assert len(done.stderr.splitlines()) == 1
