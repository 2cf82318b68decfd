from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import gguf
import pytest

from corral.errors import CorralError, InvalidModelName, InvalidRequest, ModelNotFound
from corral.store.create import CreateSpec, create, modelfile_of
from corral.store.library import Library
from corral.store.manifest import LICENSE, MODEL
from corral.store.modelfile import parse_modelfile, to_spec
from corral.store.status import Status
from corral.store.stored_model import StoredModel
from corral.store.verify import verify
from tests.support.gguf_writer import write_tiny_gguf
from tests.support.stores import quiet


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models")


def write_gguf(path: Path, architecture: str, kind: str | None = None) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    if kind is not None:
        writer.add_type(kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def made(library: Library, text: str, folder: Path, name: str = "mine") -> StoredModel:
    return create(name, to_spec(parse_modelfile(text), folder), quiet, library=library)


def test_a_model_of_a_file_is_used_in_place(library: Library, tiny: Path) -> None:
    heard: list[Status] = []
    spec = to_spec(parse_modelfile("FROM ./tiny.gguf\nSYSTEM Be brief\nPARAMETER top_k 5"), tiny.parent)
    stored = create("Mine", spec, heard.append, library=library)
    local = stored.to_local()
    assert (str(stored.name), local.path, local.system, local.parameters) == (
        "Mine:latest",
        tiny,
        "Be brief",
        {"top_k": 5},
    )
    texts = [status.status for status in heard]
    assert texts[0] == "parsing GGUF"
    assert texts[-2:] == ["writing manifest", "success"]
    assert any(text.startswith("creating new layer sha256:") for text in texts)
    config = stored.config()
    assert (config["model_format"], config["model_family"]) == ("gguf", "llama")
    assert verify(library, on_status=quiet) == []


def test_a_model_of_a_model_keeps_what_is_not_said_anew(library: Library, tiny: Path) -> None:
    base = "FROM ./tiny.gguf\nSYSTEM one\nTEMPLATE {{ .Prompt }}\nPARAMETER top_k 5\nPARAMETER seed 1\nLICENSE MIT"
    made(library, base, tiny.parent, "base")
    heard: list[Status] = []
    spec = CreateSpec(
        from_="BASE",
        system="two",
        parameters={"top_k": 9},
        licenses=("MIT", "X"),
        messages=({"role": "user", "content": "hi"},),
    )
    child = create("child", spec, heard.append, library=library)
    local = child.to_local()
    assert (local.path, local.system, local.template) == (tiny, "two", "{{ .Prompt }}")
    assert local.parameters == {"top_k": 9, "seed": 1}
    assert local.messages == ({"role": "user", "content": "hi"},)
    assert child.text(LICENSE) == ["MIT", "X"]
    assert child.manifest.of_type(MODEL)[0].from_ == "base:latest"
    assert any(status.status.startswith("using existing layer sha256:") for status in heard)


def test_show_modelfile_makes_the_same_model_again(library: Library, tiny: Path, tmp_path: Path) -> None:
    adapter = write_gguf(tmp_path / "lora.gguf", "llama", "adapter")
    text = (
        f"FROM ./tiny.gguf\nADAPTER {adapter}\n"
        'TEMPLATE """{{ if .System }}"{{ .System }}"\n{{ end }}x """\n'
        'SYSTEM " a\n"\nPARAMETER stop "</s>"\nPARAMETER stop "\n"\n'
        "PARAMETER temperature 0.5\nPARAMETER use_mmap false\n"
        "MESSAGE user hi\nMESSAGE assistant yo\nLICENSE MIT\nRENDERER r\nREQUIRES 0.1.2"
    )
    first = made(library, text, tiny.parent)
    shown = modelfile_of(first)
    second = made(library, shown, tmp_path, "again")
    assert second.manifest.layers == first.manifest.layers
    assert second.config() == first.config()
    assert modelfile_of(second) == shown.replace("mine:latest", "again:latest")
    assert first.to_local().adapters == (adapter,)


def test_blobs_that_were_sent(library: Library, tiny: Path) -> None:
    data = tiny.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with pytest.raises(InvalidRequest, match=f'blob "{digest}" not found'):
        create("m", CreateSpec(files={"m.gguf": digest}), quiet, library=library)
    library.add_blob(digest, [data])
    stored = create("m", CreateSpec(files={"m.gguf": digest}), quiet, library=library)
    assert stored.to_local().path.read_bytes() == data


def test_a_projector_beside_the_model(library: Library, tiny: Path, tmp_path: Path) -> None:
    projector = write_gguf(tmp_path / "mmproj.gguf", "clip")
    stored = made(library, f"FROM {tiny}\nFROM {projector}", tmp_path)
    assert (stored.to_local().path, stored.to_local().projector) == (tiny, projector)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (CreateSpec(), "^neither 'from' or 'files' was specified$"),
        (CreateSpec(from_="x", template="a\n{{ if }}"), "^TEMPLATE: template line 2: "),
        (CreateSpec(from_="x", parameters={"warmth": 1}), "unknown parameter 'warmth'"),
        (CreateSpec(from_="x", messages=({"role": "god", "content": "x"},)), "message role"),
        (CreateSpec(from_="x", adapters={"a": "sha256:1", "b": "sha256:2"}), "only one adapter is currently supported"),
        (CreateSpec(files={"../x": "sha256:" + "0" * 64}), "file path must be relative"),
        (CreateSpec(files={"/x": "sha256:" + "0" * 64}), "file path must be relative"),
    ],
)
def test_specs_that_are_refused_before_anything_is_done(library: Library, spec: CreateSpec, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        create("m", spec, quiet, library=library)
    assert not library.root.exists()


def test_files_that_are_refused(library: Library, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    with pytest.raises(InvalidRequest, match="unknown type"):
        made(library, "FROM ./x.gguf", tmp_path)
    (tmp_path / "torn.gguf").write_bytes(tiny.read_bytes()[:500])
    with pytest.raises(CorralError):
        made(library, "FROM ./torn.gguf", tmp_path)
    (tmp_path / "two.gguf").write_bytes(tiny.read_bytes())
    with pytest.raises(InvalidRequest, match="2 model files"):
        made(library, f"FROM ./two.gguf\nFROM {tiny}", tmp_path)
    with pytest.raises(InvalidRequest, match="no LoRA adapter"):
        made(library, f"FROM {tiny}\nADAPTER {tiny}", tmp_path)
    with pytest.raises(InvalidRequest, match="no GGUF file"):
        made(library, f"FROM {tiny}\nADAPTER ./x.gguf", tmp_path)
    with pytest.raises(InvalidModelName):
        made(library, f"FROM {tiny}", tmp_path, "a b")
    with pytest.raises(InvalidRequest, match="no Unicode"):
        create("m", CreateSpec(files={"t": str(tiny)}, system="\ud800"), quiet, library=library)
    assert library.models() == []


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str, **names: Any) -> None:
    module = types.ModuleType(name)
    for key, value in names.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_base_that_is_not_here_is_pulled(library: Library, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(name: str, on_status: Any, *, library: Library) -> StoredModel:
        on_status(Status("pulling manifest"))
        if name != "far":
            raise ModelNotFound(f"model {name!r} not found")
        return create(name, CreateSpec(files={"t": str(tiny)}), quiet, library=library)

    fake_module(monkeypatch, "corral.store.pull", pull=pull)
    heard: list[Status] = []
    assert create("m", CreateSpec(from_="far"), heard.append, library=library).to_local().path == tiny
    assert heard[0].status == "pulling manifest"
    with pytest.raises(ModelNotFound):
        create("m", CreateSpec(from_="nowhere"), quiet, library=library)


def test_quantising_and_converting(
    library: Library, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantize_file(source: Path, target: Path, kind: str, on_progress: Any) -> None:
        on_progress(1, 2)
        write_gguf(target, "llama")
        assert (source, kind) == (tiny, "Q4_K_M")

    def convert_safetensors(folder: Path, target: Path, on_progress: Any) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
        target.write_bytes(tiny.read_bytes())

    fake_module(monkeypatch, "corral.model.quantize", quantize_file=quantize_file, KINDS=("Q4_K_M", "Q8_0"))
    fake_module(monkeypatch, "corral.model.convert", convert_safetensors=convert_safetensors)
    heard: list[Status] = []
    spec = CreateSpec(files={"t": str(tiny)}, quantize="q4_k_m")
    stored = create("q", spec, heard.append, library=library)
    assert stored.to_local().path.parent == library.root / "blobs"
    assert any(status.status.startswith("quantizing ") and status.total == 2 for status in heard)
    with pytest.raises(InvalidRequest, match="unknown quantization 'Q1'; there are Q4_K_M, Q8_0"):
        create("q", CreateSpec(files={"t": str(tiny)}, quantize="Q1"), quiet, library=library)
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes(b"{}")
    converted = made(library, "FROM .", tmp_path, "c")
    assert converted.to_local().path.read_bytes() == tiny.read_bytes()
    assert not [path for path in (library.root / "blobs").iterdir() if "partial" in path.name]


def test_what_is_kept_and_not_used_is_told(library: Library, tiny: Path) -> None:
    heard: list[Status] = []
    spec = CreateSpec(files={"t": str(tiny)}, renderer="r", parser="p", drafts={"d": str(tiny)})
    stored = create("m", spec, heard.append, library=library)
    notes = [status.status for status in heard if "not used" in status.status]
    assert [note.split()[0] for note in notes] == ["DRAFT", "RENDERER", "PARSER"]
    assert stored.config()["renderer"] == "r"
    assert f"DRAFT {tiny}" in modelfile_of(stored)


CHILD = """
import itertools, random, sys
from pathlib import Path
from corral.store.create import CreateSpec, create
from corral.store.library import Library
root, tiny, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng, library = random.Random(seed), Library(root)
for number in itertools.count():
    spec = CreateSpec(files={"t": tiny}, system=f"system {rng.randrange(9)}", parameters={"seed": rng.randrange(9)})
    create(rng.choice(["one", "two"]), spec, lambda status: None, library=library)
    print(".", end="", flush=True)
"""


def test_a_store_whose_creator_is_killed_stays_whole(library: Library, tiny: Path) -> None:
    rng = random.Random(4)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for number in range(20):
        command = [sys.executable, "-c", CHILD, str(library.root), str(tiny), str(number)]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.read(1) == b".", child.communicate()[1].decode()
        time.sleep(rng.uniform(0, 0.05))  # the moment is what this test is about
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        assert verify(library, on_status=quiet) == []
        for model in library.models():
            assert model.to_local().path == tiny
            assert json.loads(json.dumps(model.config()))["model_family"] == "llama"
    create("after", CreateSpec(from_="one", system="x"), quiet, library=library)
