"""Safetensors folders become GGUF files that answer as transformers does."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral.errors import CorralError, InvalidModelFile, ModelNotFound, UnsupportedModel
from corral.model.convert import convert_safetensors
from corral.model.gguf import open_gguf
from corral.model.tensor_type import TensorType
from corral.text.tokenizer import Tokenizer
from tests.support.native_runner import NativeRunner
from tests.support.random_checkpoints import (
    CONFIGS,
    GOLDEN,
    VOCAB_SIZE,
    random_ids,
    random_tensors,
    write_checkpoint,
    write_safetensors,
)

MAX_ERROR = 0.01  # of the logits' spread: keys and values are kept as f16


def converted(folder: Path, name: str, **changes: Any) -> Path:
    target = folder / "model.gguf"
    convert_safetensors(write_checkpoint(folder / "checkpoint", name, **changes), target)
    return target


@pytest.mark.parametrize("name", CONFIGS)
def test_it_answers_as_transformers_does(tmp_path: Path, name: str) -> None:
    expected = np.load(GOLDEN)[name]
    logits = NativeRunner(converted(tmp_path, name)).all_logits(random_ids())[::4]
    assert np.abs(logits - expected).max() < MAX_ERROR * expected.std()


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole = converted(tmp_path / "a", "qwen2")
    parts = converted(tmp_path / "b", "qwen2", num_shards=3)
    assert whole.read_bytes() == parts.read_bytes()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", "qwen2", num_shards=2)
    index = {"weight_map": {"a": "model-00001-of-00003.safetensors", "b": "model-00003-of-00003.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelNotFound, match="lacks model-00001-of-00003"):
        convert_safetensors(folder, tmp_path / "x.gguf")


def test_the_vocabulary_arrives_whole(tmp_path: Path) -> None:
    with open_gguf(converted(tmp_path, "qwen3")) as gguf:
        tokenizer = Tokenizer.from_metadata(gguf.metadata)
        assert tokenizer.vocab_size == VOCAB_SIZE
        assert tokenizer.bos_id == 1
        assert tokenizer.eos_id == 2
        ids = tokenizer.encode("the horses ran into 42", add_special=False, parse_special=False)
        assert tokenizer.decode(ids) == "the horses ran into 42"
        assert tokenizer.encode("<|im_end|>", add_special=False, parse_special=True) == [2]
        assert "im_start" in str(gguf.metadata["tokenizer.chat_template"])
        assert gguf.metadata["tokenizer.ggml.pre"] == "qwen2"


@pytest.mark.parametrize(("dtype", "kind", "file_type"), [("BF16", TensorType.BF16, 32), ("F16", TensorType.F16, 1)])
def test_matrices_keep_their_type(tmp_path: Path, dtype: str, kind: TensorType, file_type: int) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    tensors = random_tensors(CONFIGS["llama"])
    if dtype == "F16":
        write_safetensors(folder / "model.safetensors", {k: v.astype(np.float16) for k, v in tensors.items()}, dtype)
    else:
        halves = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in tensors.items()}
        write_safetensors(folder / "model.safetensors", halves, dtype)
    convert_safetensors(folder, tmp_path / "model.gguf")
    with open_gguf(tmp_path / "model.gguf") as gguf:
        assert gguf.tensors["blk.0.attn_q.weight"].type == kind
        assert gguf.tensors["blk.0.attn_norm.weight"].type == TensorType.F32
        assert gguf.metadata["general.file_type"] == file_type
    logits = NativeRunner(tmp_path / "model.gguf").all_logits(random_ids())[::4]
    expected = np.load(GOLDEN)["llama"]
    assert np.abs(logits - expected).mean() < 0.05 * expected.std()


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    convert_safetensors(write_checkpoint(tmp_path / "c", "llama"), tmp_path / "m.gguf", lambda *n: seen.append(n))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["FalconForCausalLM"]}, "'FalconForCausalLM' are not converted"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope scaling 'longrope' is not known"),
        ({"hidden_size": "x"}, "hidden_size is 'x'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        ({"num_attention_heads": 3}, "rows for 3 heads"),
    ],
)
def test_a_setting_that_has_no_place_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CorralError, match=words):
        converted(tmp_path, "llama", **changes)


def test_a_tensor_that_is_not_known_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    write_safetensors(folder / "more.safetensors", {"model.layers.0.mlp.router.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(UnsupportedModel, match=r"'model.layers.0.mlp.router.weight' is not known"):
        convert_safetensors(folder, tmp_path / "x.gguf")


def test_what_models_that_see_have_besides_is_left_out(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", "gemma3")
    write_safetensors(folder / "eyes.safetensors", {"vision_tower.a.weight": np.zeros((2, 2), np.float32)})
    convert_safetensors(folder, tmp_path / "x.gguf")
    with open_gguf(tmp_path / "x.gguf") as gguf:
        assert not any("vision" in name for name in gguf.tensors)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["type"] = "Unigram"
    (folder / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(UnsupportedModel, match="'Unigram' is not converted"):
        convert_safetensors(folder, tmp_path / "x.gguf")


def test_words_split_in_an_unknown_way_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    described = json.loads((folder / "tokenizer.json").read_text())
    described["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(UnsupportedModel, match=r"splits words by .*Whitespace"):
        convert_safetensors(folder, tmp_path / "x.gguf")


def piece(text: str, score: float, kind: int) -> bytes:
    data = text.encode()
    body = b"\x0a" + bytes([len(data)]) + data + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
    return b"\x0a" + bytes([len(body)]) + body


def test_sentencepiece_models_are_read(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    (folder / "tokenizer.json").unlink()
    pieces = [("<unk>", 0.0, 2), ("<|im_start|>", 0.0, 3), ("<|im_end|>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)] + [("\u2581a", -1.5, 1), ("b", -2.0, 1)]
    normalizer = b"\x1a\x02\x18\x00"  # no space in front
    (folder / "tokenizer.model").write_bytes(b"".join(piece(*each) for each in pieces) + normalizer)
    convert_safetensors(folder, tmp_path / "x.gguf")
    with open_gguf(tmp_path / "x.gguf") as gguf:
        assert gguf.metadata["tokenizer.ggml.model"] == "llama"
        assert gguf.metadata["tokenizer.ggml.add_space_prefix"] is False
        assert gguf.metadata["tokenizer.ggml.scores"][259] == -1.5
        assert gguf.metadata["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
        assert gguf.array_length("tokenizer.ggml.tokens") == VOCAB_SIZE


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"\x0a\x7fabc", b"\x0a\x02\x18\x09", b"GGUF"])
def test_a_damaged_sentencepiece_model_is_refused(tmp_path: Path, data: bytes) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    (folder / "tokenizer.model").write_bytes(data)
    with pytest.raises(InvalidModelFile, match="no SentencePiece model"):
        convert_safetensors(folder, tmp_path / "x.gguf")


def shard(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 4,
        struct.pack("<Q", 1 << 62),
        shard(b"{"),
        shard(b"[]"),
        shard(b'{"a": 1}'),
        shard(b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}', bytes(8)),
        shard(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', bytes(8)),
        shard(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 0]}}', bytes(8)),
        shard(b'{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 8]}}', bytes(8)),
        shard(b"[" * 100_000),
    ],
)
def test_a_hostile_shard_is_refused(tmp_path: Path, data: bytes) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(InvalidModelFile):
        convert_safetensors(folder, tmp_path / "x.gguf")


def test_quantised_checkpoints_are_refused_by_type(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    write_safetensors(folder / "model.safetensors", {"a": np.zeros((2, 2), np.int8)}, "I8")
    with pytest.raises(UnsupportedModel, match="of type I8; F32, F16, BF16 are converted"):
        convert_safetensors(folder, tmp_path / "x.gguf")


@pytest.mark.parametrize(("name", "words"), [("config.json", "no config.json"), ("model.safetensors", "no .safetens")])
def test_a_folder_that_is_none_is_told(tmp_path: Path, name: str, words: str) -> None:
    folder = write_checkpoint(tmp_path / "c", "llama")
    (folder / name).unlink()
    with pytest.raises(ModelNotFound, match=words):
        convert_safetensors(folder, tmp_path / "x.gguf")
