"""`create`: from models, files, folders and blobs; nothing half made, and `show --modelfile` leads back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral.errors import CorralError, InvalidRequest, ModelNotFound, UnsupportedModel
from corral.model.gguf import open_gguf
from corral.model.tensor_type import TensorType
from corral.store.create import CreateSpec, create, modelfile_of
from corral.store.library import Library
from corral.store.modelfile import parse_modelfile, to_spec
from corral.store.names import parse_name
from corral.store.status import Status
from corral.store.stored_model import StoredModel
from corral.store.verify import verify
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.random_checkpoints import write_checkpoint

GO = "{{ if .System }}S: {{ .System }}\n{{ end }}U: {{ .Prompt }}\nA: "


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "ours")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf", TinyModel(tensor_type=TensorType.F16))


def make(library: Library, name: str, spec: CreateSpec) -> tuple[StoredModel, list[str]]:
    lines: list[Status] = []
    stored = create(name, spec, lines.append, library=library)
    assert verify(library, on_status=lambda _: None) == []
    return stored, [line.status for line in lines]


def from_file(library: Library, path: Path, name: str = "base") -> StoredModel:
    return make(library, name, CreateSpec(files={path.name: str(path)}))[0]


def test_a_file_is_used_in_place(library: Library, weights: Path) -> None:
    stored, statuses = make(library, "mine", CreateSpec(from_=str(weights), system="Be brief."))
    local = stored.to_local()
    assert local.path == weights
    assert local.system == "Be brief."
    assert "parsing GGUF" in statuses
    assert statuses[-2:] == ["writing manifest", "success"]
    config = stored.config()
    assert config["model_family"] == "llama"
    assert config["file_type"] == "F16"


def test_a_model_gives_its_layers_and_takes_new_ones(library: Library, weights: Path) -> None:
    base = CreateSpec(
        files={"w.gguf": str(weights)}, template=GO, system="old", parameters={"temperature": 0.1, "stop": ["a"]},
        licenses=("MIT",), messages=({"role": "user", "content": "hi"},),
    )  # fmt: skip
    make(library, "base", base)
    changed = CreateSpec(from_="BASE", system="new", parameters={"stop": ["b", "c"], "num_ctx": 64})
    stored, statuses = make(library, "child", changed)
    local = stored.to_local()
    assert (local.system, local.template) == ("new", GO)
    assert local.parameters == {"temperature": 0.1, "stop": ["b", "c"], "num_ctx": 64}
    assert local.messages == ({"role": "user", "content": "hi"},)
    assert any(status.startswith("using existing layer sha256:") for status in statuses)
    assert [layer.from_ for layer in stored.manifest.layers if layer.from_] == ["base:latest"]


def test_show_modelfile_leads_back(library: Library, weights: Path, tmp_path: Path) -> None:
    spec = CreateSpec(
        files={"w.gguf": str(weights)}, template=GO, system='say "hi"\nand bye', licenses=("MIT", "two\nlines"),
        parameters={"temperature": 0.25, "stop": ["<|a|>", " b"], "use_mmap": True, "seed": 3}, renderer="r",
        parser="p", messages=({"role": "user", "content": "x"}, {"role": "assistant", "content": "y\nz"}),
    )  # fmt: skip
    first, _ = make(library, "first", spec)
    text = modelfile_of(first)
    assert "# FROM first:latest" in text
    second, _ = make(library, "second", to_spec(parse_modelfile(text), tmp_path))
    assert second.manifest == first.manifest


def test_the_modelfile_of_a_blob_leads_back_without_a_copy(library: Library, weights: Path, tmp_path: Path) -> None:
    data = weights.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    library.add_blob(digest, [data])
    first, _ = make(library, "first", CreateSpec(files={"w.gguf": digest}))
    second, _ = make(library, "second", to_spec(parse_modelfile(modelfile_of(first)), tmp_path))
    assert second.manifest == first.manifest
    assert not any(path.is_symlink() for path in (library.root / "blobs").iterdir())


@pytest.mark.parametrize("kind", ["q8_0", "Q4_K_M"])
def test_floats_are_quantised(library: Library, weights: Path, kind: str) -> None:
    from_file(library, weights)
    stored, statuses = make(library, "small", CreateSpec(from_="base", quantize=kind))
    assert f"quantizing model to {kind.upper()}" in statuses
    assert any(status.startswith("creating new layer sha256:") for status in statuses)
    with open_gguf(stored.to_local().path) as gguf:
        assert gguf.tensors["blk.0.attn_q.weight"].type.name == {"q8_0": "Q8_0", "Q4_K_M": "Q4_K"}[kind]
    assert not any("partial" in path.name for path in (library.root / "blobs").iterdir())


def test_a_folder_of_safetensors_is_converted(library: Library, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", "qwen2")
    stored, statuses = make(library, "new", to_spec(parse_modelfile(f"FROM {folder}"), tmp_path))
    assert "converting model" in statuses
    assert stored.config()["model_family"] == "qwen2"


def test_a_converted_folder_is_called_as_it_is_and_gives_the_same_bytes_again(library: Library, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "my-finetune", "llama")
    files = {path.name: str(path) for path in folder.iterdir()}
    first, _ = make(library, "first", CreateSpec(files=files))
    second, _ = make(library, "second", CreateSpec(files=files))
    with open_gguf(first.to_local().path) as gguf:
        assert gguf.metadata["general.name"] == "my-finetune"
    assert second.manifest == first.manifest
    blobs = {name: f"sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}" for name in files}
    for name, digest in blobs.items():
        library.add_blob(digest, [(folder / name).read_bytes()])
    third, _ = make(library, "third", CreateSpec(files=blobs))
    with open_gguf(third.to_local().path) as gguf:
        assert gguf.metadata["general.name"] == "model"


def test_a_wrong_quantisation_is_refused_before_a_conversion(library: Library, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", "llama")
    spec = CreateSpec(files={path.name: str(path) for path in folder.iterdir()}, quantize="Q9")
    statuses: list[Status] = []
    with pytest.raises(CorralError, match="'Q9' is no quantisation"):
        create("x", spec, statuses.append, library=library)
    assert statuses == []


def test_a_template_that_cannot_be_rendered_is_refused_by_line(library: Library, weights: Path) -> None:
    with pytest.raises(UnsupportedModel, match="line 2"):
        make(
            library,
            "x",
            CreateSpec(files={"w.gguf": str(weights)}, template="{{ .System }}\n{{ .Prompt | frobnicate }}"),
        )
    assert library.models() == []


def test_a_broken_name_or_source_changes_nothing(library: Library, weights: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    specs: list[tuple[CreateSpec, type[CorralError], str]] = [
        (CreateSpec(), InvalidRequest, "neither 'from' or 'files' was specified"),
        (CreateSpec(from_="a", files={"b": "c"}), InvalidRequest, "both 'from' and 'files'"),
        (CreateSpec(files={"../x.gguf": str(weights)}), InvalidRequest, "file path must be relative"),
        (CreateSpec(files={"x.gguf": "relative.gguf"}), InvalidRequest, "a digest or a whole path is needed"),
        (CreateSpec(files={"x.gguf": f"sha256:{'0' * 64}"}), ModelNotFound, "not found: send it to /api/blobs"),
        (CreateSpec(files={"notes.txt": str(text)}), InvalidRequest, "unknown type"),
        (CreateSpec(files={"x.gguf": str(tmp_path / "gone")}), ModelNotFound, "there is no file"),
        (CreateSpec(files={"x.gguf": str(weights)}, adapters={"a": str(weights)}), UnsupportedModel, "no LoRA adapter"),
        (CreateSpec(files={"x.gguf": str(weights)}, quantize="Q9"), CorralError, "'Q9' is no quantisation"),
    ]
    for spec, error, words in specs:
        with pytest.raises(error, match=words):
            create("x", spec, lambda _: None, library=library)
    assert library.models() == []
    with pytest.raises(CorralError, match="invalid model name"):
        create("a b", CreateSpec(files={"x.gguf": str(weights)}), lambda _: None, library=library)


def test_what_on_status_raises_ends_it(library: Library, weights: Path) -> None:
    class Stop(Exception):
        pass

    def stop(status: Status) -> None:
        if status.status.startswith("quantizing"):
            raise Stop

    from_file(library, weights)
    with pytest.raises(Stop):
        create("x", CreateSpec(from_="base", quantize="Q8_0"), stop, library=library)
    assert library.find(parse_name("x")) is None
    assert not any("partial" in path.name for path in (library.root / "blobs").iterdir())
