"""Writes tests/golden/tokenizer/*.json: llama.cpp's tokens for the corpus, on real and on toy vocabularies.

    python -m tests.support.regenerate_tokenizer_golden [NAME ...]

Needs the `reference` and `test` extras, and fetches the real models. Without names, all files are written.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import llama_cpp

from tests.support.models import model_path
from tests.text.corpus import TEXTS, random_texts
from tests.text.toy_vocabulary import byte_level_metadata, sentencepiece_metadata

FOLDER = Path(__file__).parent.parent / "golden" / "tokenizer"
REAL_MODELS = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
BPE_KINDS = ("llama-bpe", "qwen2", "smollm", "gpt-2", "tekken", "default", "dbrx")
TOYS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"toy-{pre}": partial(byte_level_metadata, pre) for pre in BPE_KINDS},
    "toy-no-pre": lambda: {k: v for k, v in byte_level_metadata("").items() if k != "tokenizer.ggml.pre"},
    "toy-spm": sentencepiece_metadata,
    "toy-spm-no-prefix": lambda: sentencepiece_metadata(
        **{"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_eos_token": True}
    ),
    "toy-phi-3": lambda: sentencepiece_metadata(**{"general.name": "Phi-3 mini"}),
}
_DISCARD_LOG = llama_cpp.llama_log_callback(lambda *_: None)  # faults come back as return codes
NUM_RANDOM_TEXTS = 400
RANDOM_SEED = 20240229


def digest(results: Iterable[list[int]]) -> str:
    """Stands for token lists in a golden file, which would be megabytes."""
    sha = hashlib.sha256()
    for ids in results:
        sha.update(json.dumps(ids).encode() + b"\n")
    return sha.hexdigest()[:16]


def special_texts(special_tokens: Iterable[str]) -> list[str]:
    """Every special token among text, with and without spaces."""
    return [f"a{token} b {token}\n{token}" for token in special_tokens]


class LlamaVocabulary:
    """The vocabulary of a GGUF file, as llama.cpp reads it."""

    def __init__(self, path: Path) -> None:
        llama_cpp.llama_log_set(_DISCARD_LOG, ctypes.c_void_p(0))
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self._vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)

    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), ids, len(ids), add_special, parse_special)
        if count < 0:
            raise RuntimeError(f"llama.cpp needs {-count} tokens for a text of {len(data)} bytes")
        return list(ids[:count])

    def piece(self, token_id: int, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(1 << 12)
        count = llama_cpp.llama_token_to_piece(self._vocab, token_id, buffer, len(buffer), 0, special)
        return buffer.raw[:count]

    def is_eog(self, token_id: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token_id))

    def is_hidden(self, token_id: int) -> bool:
        return bool(self.piece(token_id, True)) and not self.piece(token_id, False)


def golden_of(vocabulary: LlamaVocabulary, special_tokens: list[str]) -> dict[str, Any]:
    """Everything the tests compare."""
    modes = {"plain": (True, False), "parsed": (False, True)}
    specials = special_texts(special_tokens)
    randoms = random_texts(NUM_RANDOM_TEXTS, RANDOM_SEED)
    return {
        "reference": f"llama-cpp-python {llama_cpp.__version__}",
        "eog_ids": [i for i in range(vocabulary.size) if vocabulary.is_eog(i)],
        "special_ids_digest": digest([[i for i in range(vocabulary.size) if vocabulary.is_hidden(i)]]),
        "pieces_digest": digest(list(vocabulary.piece(i, True)) for i in range(vocabulary.size)),
        **{mode: [digest([vocabulary.encode(text, *flags)]) for text in TEXTS] for mode, flags in modes.items()},
        **{f"{mode}_special_digest": digest(vocabulary.encode(t, *f) for t in specials) for mode, f in modes.items()},
        "random_digest": digest(vocabulary.encode(text, False, False) for text in randoms),
    }


def write_vocabulary(metadata: dict[str, Any], path: Path) -> None:
    """A GGUF file with metadata only."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def special_tokens_of(metadata: dict[str, Any]) -> list[str]:
    """Control, unknown and user-defined tokens, by the file's own types."""
    typed = zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True)
    return [text for text, kind in typed if kind in (2, 3, 4)]


def real_metadata(path: Path) -> dict[str, Any]:
    """`tokenizer.*` of a real file, read by the reference reader."""
    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer.ggml.tok")}


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or [*REAL_MODELS, *TOYS]:
        with tempfile.TemporaryDirectory() as folder:
            if name in TOYS:
                metadata, path = TOYS[name](), Path(folder) / "vocabulary.gguf"
                write_vocabulary(metadata, path)
            else:
                path = model_path(name)
                metadata = real_metadata(path)
            golden = golden_of(LlamaVocabulary(path), special_tokens_of(metadata))
        lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in golden.items()]
        (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{name}: {len(TEXTS)} texts, {len(special_tokens_of(metadata))} special tokens")


if __name__ == "__main__":
    main(sys.argv[1:])
