"""Tokenisation identical to llama.cpp's; its answers are in tests/golden/tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from corral.model.gguf import open_gguf
from corral.text.tokenizer import Tokenizer
from tests.support.models import model_path
from tests.text.corpus import TEXTS, random_texts
from tests.text.toy_vocabulary import byte_level_metadata, sentencepiece_metadata

FOLDER = Path(__file__).parent.parent / "golden" / "tokenizer"
REAL = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
TOYS = sorted(path.stem for path in FOLDER.glob("toy-*.json"))
MODELS = [*TOYS, *(pytest.param(name, marks=pytest.mark.e2e) for name in REAL)]
MODES = {"plain": (True, False), "parsed": (False, True)}


def digest(results: Iterable[list[int]]) -> str:
    """As tests/support/regenerate_tokenizer_golden.py has it."""
    sha = hashlib.sha256()
    for ids in results:
        sha.update(json.dumps(ids).encode() + b"\n")
    return sha.hexdigest()[:16]


@cache
def metadata_of(name: str) -> dict[str, Any]:
    if name in REAL:
        gguf = open_gguf(model_path(name))
        try:
            return {key: value for key, value in gguf.metadata.items() if key.startswith("tokenizer.")}
        finally:
            gguf.close()
    if name == "toy-no-pre":
        return {key: value for key, value in byte_level_metadata("").items() if key != "tokenizer.ggml.pre"}
    if name == "toy-phi-3":
        return sentencepiece_metadata(**{"general.name": "Phi-3 mini"})
    if name == "toy-spm-no-prefix":
        return sentencepiece_metadata(
            **{"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_eos_token": True}
        )
    if name == "toy-spm":
        return sentencepiece_metadata()
    return byte_level_metadata(name.removeprefix("toy-"))


@cache
def tokenizer_of(name: str) -> Tokenizer:
    return Tokenizer.from_metadata(metadata_of(name))


@cache
def golden_of(name: str) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return golden


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_the_corpus_has_llama_cpps_tokens(name: str, mode: str) -> None:
    tokenizer, (add_special, parse_special) = tokenizer_of(name), MODES[mode]
    encoded = [tokenizer.encode(text, add_special=add_special, parse_special=parse_special) for text in TEXTS]
    different = [
        (text, ids)
        for text, ids, wanted in zip(TEXTS, encoded, golden_of(name)[mode], strict=True)
        if digest([ids]) != wanted
    ]
    assert different == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_every_special_token_in_text_has_llama_cpps_tokens(name: str, mode: str) -> None:
    tokenizer, (add_special, parse_special) = tokenizer_of(name), MODES[mode]
    typed = zip(metadata_of(name)["tokenizer.ggml.tokens"], metadata_of(name)["tokenizer.ggml.token_type"], strict=True)
    texts = [f"a{token} b {token}\n{token}" for token, kind in typed if kind in (2, 3, 4)]
    encoded = [tokenizer.encode(text, add_special=add_special, parse_special=parse_special) for text in texts]
    assert digest(encoded) == golden_of(name)[f"{mode}_special_digest"]


@pytest.mark.parametrize("name", MODELS)
def test_random_texts_have_llama_cpps_tokens(name: str) -> None:
    texts = random_texts(400, 20240229)
    encoded = (tokenizer_of(name).encode(text, add_special=False, parse_special=False) for text in texts)
    assert digest(encoded) == golden_of(name)["random_digest"]


@pytest.mark.parametrize("name", MODELS)
def test_pieces_and_kinds_of_tokens_are_llama_cpps(name: str) -> None:
    tokenizer, golden = tokenizer_of(name), golden_of(name)
    ids = range(tokenizer.vocab_size)
    assert sorted(tokenizer.eog_ids) == golden["eog_ids"]
    assert digest([[i for i in ids if tokenizer.is_special(i)]]) == golden["special_ids_digest"]
    assert digest(list(tokenizer.token_bytes(i)) for i in ids) == golden["pieces_digest"]
