"""What is read from a model's layers, and files that are used in place."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from corral.errors import CorralError, ModelNotFound
from corral.store.library import Library
from corral.store.manifest import ADAPTER, CONFIG, LICENSE, MESSAGES, MODEL, PARAMS, PROMPT, TEMPLATE, Layer, Manifest
from corral.store.names import parse_name
from corral.store.status import Status
from tests.support.stores import blobs, quiet


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "ours")


def write(library: Library, *layers: Layer) -> None:
    library.write(parse_name("m"), Manifest(library.add_bytes(b"{}", CONFIG), layers))


def test_a_model_is_read_with_all_its_layers(library: Library) -> None:
    model, adapter = library.add_bytes(b"GGUF", MODEL), library.add_bytes(b"GGUF adapter", ADAPTER)
    write(
        library,
        *(model, adapter, library.add_bytes(b"old", PROMPT), library.add_bytes(b"{{ .Prompt }}", TEMPLATE)),
        *(library.add_bytes(b"MIT", LICENSE), library.add_bytes(b"more", LICENSE)),
        library.add_bytes(json.dumps({"stop": ["x"], "temperature": 0.5, "num_ctx": 10}).encode(), PARAMS),
        library.add_bytes(json.dumps([{"role": "user", "content": "hi", "extra": 1}]).encode(), MESSAGES),
        library.add_bytes(b"?", "application/vnd.ollama.image.unknown"),
    )
    stored = library.models()[0]
    local = stored.to_local()
    assert local.path == library.blob(model.digest)
    assert local.adapters == (library.blob(adapter.digest),)
    assert (local.name, local.template, local.system, local.projector) == ("m:latest", "{{ .Prompt }}", None, None)
    assert local.parameters == {"stop": ["x"], "temperature": 0.5, "num_ctx": 10}
    assert local.messages == ({"role": "user", "content": "hi"},)
    assert local.digest == stored.digest
    assert stored.text(LICENSE) == ["MIT", "more"]


@pytest.mark.parametrize(
    ("media_type", "data", "fault"),
    [
        (PARAMS, b"[1]", "the params of model 'm:latest', must be an object"),
        (PARAMS, b"{", "is not JSON"),
        (PARAMS, b"[" * 100_000, "is not JSON"),
        (MESSAGES, b"{}", "must be a list of messages"),
        (MESSAGES, b'[{"role":"user"}]', "each with role and content"),
        (MESSAGES, b'["x"]', "each with role and content"),
        (TEMPLATE, b" " * ((16 << 20) + 1), "is larger than"),
    ],
)
def test_a_malformed_layer_is_named(library: Library, media_type: str, data: bytes, fault: str) -> None:
    write(library, library.add_bytes(b"GGUF", MODEL), library.add_bytes(data, media_type))
    with pytest.raises(CorralError, match=fault):
        library.models()[0].to_local()


def test_a_missing_or_damaged_layer_is_told_with_what_to_do(library: Library) -> None:
    model, template = library.add_bytes(b"GGUF", MODEL), library.add_bytes(b"text", TEMPLATE)
    write(library, model, template)
    stored = library.models()[0]
    library.blob_target(template.digest).write_bytes(b"tExt")
    with pytest.raises(CorralError, match=r"the template of model 'm:latest', is damaged.*corral pull m:latest"):
        stored.to_local()
    library.blob_target(model.digest).unlink()
    with pytest.raises(
        CorralError, match=f"its model, blob {model.digest}, is missing; `corral pull m:latest` gets it"
    ):
        stored.to_local()


def test_a_model_without_a_file_is_refused(library: Library) -> None:
    write(library, library.add_bytes(b"text", TEMPLATE))
    with pytest.raises(CorralError, match="its manifest names no GGUF"):
        library.models()[0].to_local()


# Files in place.


def test_a_file_is_used_in_place_and_hashed_once(library: Library, tmp_path: Path) -> None:
    file = tmp_path / "my model.gguf"
    file.write_bytes(b"GGUF" * 1000)
    seen: list[Status] = []
    layer = library.link_file(file, MODEL, seen.append)
    assert layer == Layer(MODEL, digest_of(file.read_bytes()), 4000)
    assert [(status.status, status.completed, status.total) for status in seen] == [
        ("hashing my model.gguf", 4000, 4000)
    ]
    write(library, layer)
    assert library.models()[0].to_local().path == file
    assert library.blob_target(layer.digest).is_symlink()
    assert Library(library.root).link_file(file, MODEL, seen.append) == layer
    assert len(seen) == 1
    library.delete(parse_name("m"))
    assert file.exists()
    assert blobs(library.root) == set()
    assert list((library.root / "links").iterdir()) == []


@pytest.mark.parametrize("change", ["longer", "same size", "gone"])
def test_a_file_in_place_that_changed_is_named(library: Library, tmp_path: Path, change: str) -> None:
    file = tmp_path / "f.gguf"
    file.write_bytes(b"GGUF")
    layer = library.link_file(file, MODEL, quiet)
    write(library, layer)
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(b"GGUFF" if change == "longer" else b"FGUG")
        os.utime(file, ns=(0, 0))
    expected = {"longer": "has 5 bytes, not 4", "same size": "has been written since", "gone": "is gone"}[change]
    with pytest.raises(
        CorralError, match=rf"'m:latest' cannot be used: the file {file}, used in place, {expected}.*create"
    ):
        library.models()[0].to_local()
    assert library.blob(layer.digest) is None
    with pytest.raises(CorralError, match="used in place"):
        library.copy(parse_name("m"), parse_name("n"))
    assert library.add_blob(layer.digest, [b"GGUF"], 4), "the bytes themselves mend it"
    assert library.models()[0].to_local().path.read_bytes() == b"GGUF"


def test_what_is_no_file_cannot_be_linked(library: Library, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no file"):
        library.link_file(tmp_path / "nothing", MODEL, quiet)
    with pytest.raises(CorralError, match="is a folder or device"):
        library.link_file(tmp_path, MODEL, quiet)


def test_a_file_that_changes_while_it_is_read_is_refused(library: Library, tmp_path: Path) -> None:
    file = tmp_path / "f.gguf"
    file.write_bytes(b"GGUF")

    def write_more(_status: Status) -> None:
        file.write_bytes(b"longer than before")

    with pytest.raises(CorralError, match="has changed while it was read"):
        library.link_file(file, MODEL, write_more)
    assert blobs(library.root) == set()


def test_a_blob_of_the_store_links_to_nothing_but_itself(library: Library) -> None:
    layer = library.add_bytes(b"GGUF", MODEL)
    path = library.blob_target(layer.digest)
    assert library.link_file(path, MODEL, quiet) == layer
    assert not path.is_symlink()
