from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from corral.errors import InvalidModelName, ModelNotFound
from corral.model.gguf import open_gguf
from corral.store import catalog, resolve
from corral.store.catalog import Artifact, CatalogEntry, HubFile
from corral.store.library import Library
from corral.store.names import parse_name
from corral.store.status import Status
from tests.store.conftest import tiny_gguf
from tests.support.fake_hub import FakeHub
from tests.support.gguf_writer import write_tiny_gguf
from tests.support.random_models import file_digest


@pytest.fixture
def toy(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The bytes of a model of a small catalog, which the hub has."""
    data = tiny_gguf()
    (tmp_path / "toy.gguf").write_bytes(data)
    artifact = Artifact(
        "toy.gguf", len(data), file_digest(tmp_path / "toy.gguf"), hub=HubFile("org/model", "toy.gguf", "main")
    )
    monkeypatch.setattr(catalog, "CATALOG", (CatalogEntry("toy", ("latest", "1b"), "llama", "MIT", artifact),))
    hub.add("org/model", "toy.gguf", data)
    return data


def test_a_path_is_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert resolve("m.gguf").path == Path("m.gguf")
    assert resolve("./m.gguf").name == "m"
    assert resolve(tmp_path / "m.gguf").path == tmp_path / "m.gguf"
    assert resolve(tmp_path).path == tmp_path / "m.gguf"


def test_a_folder_with_one_split_model_is_that_model(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", split_max_tensors=6)
    (tmp_path / "m.gguf").unlink(missing_ok=True)
    assert resolve(tmp_path).path == tmp_path / "m-00001-of-00004.gguf"


def test_a_path_that_is_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"there is no file .*x\.gguf"):
        resolve(str(tmp_path / "x.gguf"))


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("a.gguf", "b.gguf"), r"2 .gguf files; name one: a\.gguf, b\.gguf"),
        (("model.safetensors", "config.json"), "`corral create"),
        (("readme.md",), "it has no .gguf file"),
    ],
)
def test_a_folder_without_one_model_is_answered_with_what_to_do(
    tmp_path: Path, names: tuple[str, ...], text: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ModelNotFound, match=text):
        resolve(str(tmp_path))


def test_a_name_is_pulled_once_and_then_found_here(toy: bytes, hub: FakeHub) -> None:
    told: list[Status] = []
    local = resolve("toy", told.append)
    assert local.path.read_bytes() == toy
    assert local.name == "toy:latest"
    assert [s.status for s in told if not s.digest][-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    asked = len(hub.hub.seen)
    assert resolve("TOY").path == local.path
    assert len(hub.hub.seen) == asked
    assert resolve("toy:1b").path == local.path  # the same bytes under another name need no network either
    assert len(hub.cdn.seen) == 1


def test_a_blob_of_an_older_store_is_enough(toy: bytes, tmp_path: Path, hub: FakeHub) -> None:
    library = Library.open()
    library.add_blob(file_digest(tmp_path / "toy.gguf"), [toy])
    assert resolve("toy").path.read_bytes() == toy
    assert hub.hub.seen == []


def test_a_file_that_lost_bytes_since_is_fetched_again(toy: bytes) -> None:
    resolve("toy").path.write_bytes(toy[:100])
    assert resolve("toy").path.read_bytes() == toy


def test_what_is_not_here_and_may_not_be_pulled_is_not_found(toy: bytes, hub: FakeHub) -> None:
    with pytest.raises(ModelNotFound, match=r"^model 'toy' not found$"):
        resolve("toy", may_pull=False)
    assert hub.hub.seen == []


def test_what_cannot_be_a_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelName, match=r"^invalid model name"):
        resolve("a b")


def test_a_split_model_of_the_store_opens_whole(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", split_max_tensors=6)
    from corral.store.pull import pull

    stored = pull(str(tmp_path / "m-00002-of-00004.gguf"), lambda _s: None)
    assert len(stored.manifest.layers) == 4
    found = Library.open().find(parse_name(str(stored.name)))
    assert found is not None
    with open_gguf(found.to_local().path) as whole, open_gguf(tmp_path / "m-00001-of-00004.gguf") as parts:
        assert list(whole.tensors) == list(parts.tensors)


def test_a_model_that_is_here_loads_no_network_code(toy: bytes) -> None:
    resolve("toy")
    code = "import sys; from corral.store import resolve; resolve('toy'); print('httpx' in sys.modules)"
    import os

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.strip() == "False"
