from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from corral.errors import InvalidModelFile, ModelNotFound
from corral.model.tensor_type import TensorType
from corral.store.facts import ModelFacts, facts_of, model_info, parameter_size, tensors_of
from corral.store.library import Library
from corral.store.local_model import LocalModel
from corral.store.manifest import CONFIG, MODEL, TEMPLATE, Layer, Manifest
from corral.store.names import parse_name
from tests.store.test_stored_model import digest_of
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.stores import add_model


def facts(
    folder: Path, extra: dict[str, Any] | None = None, template: str | None = None, family: str = "llama"
) -> ModelFacts:
    path = write_tiny_gguf(folder / "m.gguf", TinyModel(family=family, extra=extra or {}))
    return facts_of(LocalModel("m", path, template=template))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((0, "0"), (999, "999"), (1000, "1K"), (26_499, "26K"), (1_000_000, "1M"), (134_515_008, "134.52M")),
        *((494_032_768, "494.03M"), (1_543_714_304, "1.5B"), (7_615_616_512, "7.6B"), (70_000_000_000, "70B")),
    ],
)
def test_sizes_are_written_as_ollama_does(count: int, text: str) -> None:
    assert parameter_size(count) == text


def test_the_header_tells_the_facts(tmp_path: Path) -> None:
    found = facts(tmp_path, {"general.file_type": 15})
    assert (found.format, found.family, found.families) == ("gguf", "llama", ("llama",))
    assert (found.quantization_level, found.context_length, found.embedding_length) == ("Q4_K_M", 2048, 256)
    assert found.parameter_size.endswith("M")
    assert found.capabilities == ("completion",)


@pytest.mark.parametrize(
    ("file_type", "level"),
    [
        *((0, "F32"), (1, "F16"), (3, "Q4_1"), (7, "Q8_0"), (18, "Q6_K"), (30, "IQ4_XS"), (1024 + 15, "Q4_K_M")),
        *((None, "Q8_0"), (5, "Q8_0"), (999, "Q8_0"), ("Q4", "Q8_0"), (True, "Q8_0")),
    ],
)
def test_the_quantisation_is_that_of_the_file_else_of_most_weights(
    tmp_path: Path, file_type: object, level: str
) -> None:
    assert facts(tmp_path, {"general.file_type": file_type}).quantization_level == level


@pytest.mark.parametrize(
    ("template", "capability"),
    [
        ("{% if tools %}{{ tools }}{% endif %}", "tools"),
        ("{{ if .Tools }}x{{ end }}", "tools"),
        ("{{ .Prompt }}{{ .Suffix }}", "insert"),
        ("{% if enable_thinking %}{% endif %}", "thinking"),
        ("{{ if .Think }}{{ end }}", "thinking"),
        ("x<think>y", "thinking"),
    ],
)
def test_capabilities_follow_from_the_template(tmp_path: Path, template: str, capability: str) -> None:
    assert facts(tmp_path, template=template).capabilities == ("completion", capability)


def test_the_files_own_template_counts_unless_another_takes_its_place(tmp_path: Path) -> None:
    own = {"tokenizer.chat_template": "{{ tools }}<think>"}
    assert facts(tmp_path, own).capabilities == ("completion", "tools", "thinking")
    assert facts(tmp_path, own, "you have no tools").capabilities == ("completion",)


def test_a_vocabulary_with_fill_in_the_middle_can_insert(tmp_path: Path) -> None:
    ids = {"tokenizer.ggml.fim_pre_token_id": 1, "tokenizer.ggml.fim_suf_token_id": 2}
    assert facts(tmp_path, ids).capabilities == ("completion", "insert")
    metadata = TinyModel().metadata()
    tokens, types = list(metadata["tokenizer.ggml.tokens"]), list(metadata["tokenizer.ggml.token_type"])
    for index, text in ((-1, "<|fim_prefix|>"), (-2, "<|fim_suffix|>")):
        tokens[index], types[index] = text, 3
    texts = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    assert facts(tmp_path, texts).capabilities == ("completion", "insert")


def test_a_model_that_pools_embeds_and_does_not_complete(tmp_path: Path) -> None:
    assert facts(tmp_path, {"qwen3.pooling_type": 3}, family="qwen3").capabilities == ("embedding",)
    assert facts(tmp_path, {"qwen3.pooling_type": 0}, family="qwen3").capabilities == ("completion",)


def test_the_model_it_was_made_from_comes_from_the_manifest(tmp_path: Path) -> None:
    library = Library(tmp_path / "models")
    data = write_tiny_gguf(tmp_path / "m.gguf").read_bytes()
    layer = library.add_bytes(data, MODEL)
    layers = (Layer(MODEL, layer.digest, layer.size, "base:1b"), library.add_bytes(b"{{ .Tools }}", TEMPLATE))
    stored = library.write(parse_name("m"), Manifest(library.add_bytes(b'{"model_family":"lie"}', CONFIG), layers))
    found = facts_of(stored)
    assert (found.parent_model, found.family, found.capabilities) == ("base:1b", "llama", ("completion", "tools"))


def test_a_broken_file_breaks_no_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = Library(tmp_path / "models")
    good = add_model(library, "good", write_tiny_gguf(tmp_path / "m.gguf").read_bytes())
    add_model(library, "broken", b"nothing of a GGUF")
    add_model(library, "gone", b"GGUF gone")
    library.blob_target(digest_of(b"GGUF gone")).unlink()
    found = {str(model.name): facts_of(model) for model in library.models()}
    assert found["good:latest"] == facts_of(good)
    assert found["good:latest"].family == "llama"
    assert found["broken:latest"] == found["gone:latest"] == ModelFacts()
    assert "is missing" in caplog.text
    with pytest.raises(InvalidModelFile):
        model_info(library.blob_target(digest_of(b"nothing of a GGUF")), verbose=True)
    with pytest.raises(ModelNotFound):
        tensors_of(tmp_path / "nothing")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    first = facts(tmp_path, {"llama.context_length": 64})
    path = tmp_path / "m.gguf"
    os.utime(path, (1, 1))
    second = facts(tmp_path, {"llama.context_length": 32})
    assert (first.context_length, second.context_length) == (64, 32)


def test_the_metadata_is_json_and_short_unless_asked_for(tmp_path: Path) -> None:
    extra = {"tokenizer.chat_template": "x", "test.nan": float("nan"), "test.numbers": [1, 2, 3]}
    path = write_tiny_gguf(tmp_path / "m.gguf", TinyModel(extra=extra))
    short, long = model_info(path, verbose=False), model_info(path, verbose=True)
    json.dumps(long, allow_nan=False)
    assert short["general.architecture"] == "llama"
    assert short["llama.context_length"] == 2048
    assert (short["tokenizer.ggml.tokens"], short["test.numbers"], short["test.nan"]) == ([], [1, 2, 3], None)
    assert len(long["tokenizer.ggml.tokens"]) == TinyModel().vocab_size
    assert short.keys() == long.keys()
    assert "general.name" not in short
    assert "tokenizer.chat_template" not in short
    shapes = [tensor["shape"] for tensor in tensors_of(path)]
    total = 0
    for shape in shapes:
        size = 1
        for width in shape:
            size *= width
        total += size
    assert short["general.parameter_count"] == total


def test_tensors_are_told_by_name_type_and_shape(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", TinyModel(tensor_type=TensorType.Q4_K))
    tensors = {tensor["name"]: tensor for tensor in tensors_of(path)}
    assert tensors["blk.0.ffn_up.weight"] == {"name": "blk.0.ffn_up.weight", "type": "Q4_K", "shape": [256, 512]}
    assert tensors["output_norm.weight"]["type"] == "F32"
