"""WordPiece beside BERT's own tokenizer, and beside llama.cpp, whose answers are in tests/golden/wordpiece.json."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from corral.errors import InvalidVocabulary
from corral.text import wordpiece
from corral.text.tokenizer import Tokenizer
from tests.text.corpus import TEXTS, random_texts
from tests.text.toy_vocabulary import wordpiece_metadata

GOLDEN_FILE = Path(__file__).parent.parent / "golden" / "wordpiece.json"
PAD, UNUSED, UNK, CLS, SEP, MASK = range(6)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_metadata(wordpiece_metadata())


def encode(text: str, made: Tokenizer | None = None) -> list[int]:
    return (made or tokenizer()).encode(text, add_special=False, parse_special=False)


def texts_of(ids: list[int]) -> list[str]:
    return [tokenizer().token_bytes(i).decode() for i in ids]


@cache
def bert() -> Any:
    """The toy vocabulary as BERT itself has it: ## before what continues a word."""
    plain = wordpiece_metadata()["tokenizer.ggml.tokens"]
    named = {text: i for i, text in enumerate(plain[:6])}
    pieces = {text[1:] if text.startswith("\u2581") else "##" + text: i for i, text in enumerate(plain) if i > 5}
    made = tokenizers.Tokenizer(models.WordPiece(named | pieces, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


@pytest.mark.parametrize("texts", [TEXTS, tuple(random_texts(400, 20240229))], ids=["corpus", "random"])
def test_texts_have_berts_tokens(texts: tuple[str, ...]) -> None:
    assert [text for text in texts if encode(text) != bert().encode(text).ids] == []


@given(st.text(max_size=300))
def test_any_text_has_berts_tokens(text: str) -> None:
    well_formed = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert encode(text) == bert().encode(well_formed).ids


def is_known_to_differ(text: str) -> bool:
    """llama.cpp keeps the first letter only of a Hangul syllable, drops vowel signs, keeps combining marks, takes some
    control characters for spaces, and has no longest word."""
    odd = any(
        "\u0300" <= c <= "\u036f" or "\u0900" <= c <= "\u0fff" or "\u1100" <= c <= "\u11ff" or "\uac00" <= c <= "\ud7a3"
        for c in text
    )
    return odd or any(c in text for c in "\x0b\x0c\x1c\x85\u2028\u20e3") or max(map(len, text.split()), default=0) > 100


def test_the_corpus_has_llama_cpps_tokens_but_where_they_are_known_to_differ() -> None:
    wanted = json.loads(GOLDEN_FILE.read_text())["digests"]
    different = []
    for text, digest in zip(TEXTS, wanted, strict=True):
        ids = tokenizer().encode(text, add_special=True, parse_special=False)
        if hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16] != digest:
            different.append(text)
    assert len(different) < len(TEXTS) / 4
    assert [text for text in different if not is_known_to_differ(text)] == []


def test_every_text_stands_between_cls_and_sep() -> None:
    for text in ("", " ", "a", "\u0301"):
        ids = tokenizer().encode(text, add_special=True, parse_special=False)
        assert (ids[0], ids[-1]) == (CLS, SEP)
    assert tokenizer().encode("", add_special=True, parse_special=False) == [CLS, SEP]
    flags = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": False}
    made = Tokenizer.from_metadata(wordpiece_metadata(**flags))
    assert made.encode("", add_special=True, parse_special=False) == [CLS, SEP]


def test_the_longest_piece_from_the_left_is_taken() -> None:
    assert "".join(texts_of(encode("hello world"))) == " hello world"
    assert texts_of(encode("a!b")) == [" a", " !", " b"]


def test_words_are_lowered_and_stripped_of_accents() -> None:
    assert encode("NAÏVE Café e\u0301") == encode("naive cafe e")


def test_a_word_with_a_part_that_is_no_piece_is_unknown_as_a_whole() -> None:
    assert encode("abq abc") == [UNK, *encode("abc")]


def test_a_word_of_more_than_a_hundred_characters_is_unknown() -> None:
    assert encode("a" * 101) == [UNK]
    assert UNK not in encode("a" * 100)


def test_control_tokens_are_text_unless_they_are_parsed() -> None:
    assert CLS not in encode("[CLS] a [SEP]")
    parsed = tokenizer().encode("[CLS]a[MASK]", add_special=False, parse_special=True)
    assert parsed == [CLS, *encode("a"), MASK]


def test_decoding_gives_the_words_back() -> None:
    assert tokenizer().decode([CLS, *encode("hello world"), SEP]) == "hello world"


def test_no_length_of_text_is_hopeless() -> None:
    assert tokenizer().min_num_tokens("a" * 1_000_000) == 0


def test_long_texts_are_encoded_in_chunks_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(random_texts(20, seed)) for seed in range(20)]
    whole = [encode(text) for text in texts]
    monkeypatch.setattr(wordpiece, "_CHUNK_CHARS", 7)
    assert [encode(text) for text in texts] == whole


def test_a_cased_vocabulary_keeps_capitals() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581Horse", "\u2581horse", "s", "\u2581É"]
    keys = {"unknown": 1, "cls": 2, "bos": 2, "eos": 3, "seperator": 3, "padding": 0, "mask": 1}
    made = Tokenizer.from_metadata(
        {
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3, 3, 3, 3, 1, 1, 1, 1],
            **{f"tokenizer.ggml.{name}_token_id": number for name, number in keys.items()},
        }
    )
    assert encode("Horses horses É HORSE", made) == [4, 6, 5, 6, 7, 1]


def test_ids_that_a_file_leaves_out_are_berts_own() -> None:
    names = ("unknown", "cls", "bos", "eos", "seperator")
    metadata = wordpiece_metadata(**{f"tokenizer.ggml.{name}_token_id": None for name in names})
    made = Tokenizer.from_metadata({key: value for key, value in metadata.items() if value is not None})
    assert (made.bos_id, made.eos_id) == (101, 102)
    assert encode("\U0001f40e", made) == [100]


def test_hostile_tokens_are_no_pieces() -> None:
    metadata = wordpiece_metadata()
    tokens = [*metadata["tokenizer.ggml.tokens"], "\u2581", "\0a", "\udc80", "\0\0", "\u2581\0\0", "##zz"]
    metadata |= {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*metadata["tokenizer.ggml.token_type"], *[1] * 6],
    }
    made = Tokenizer.from_metadata(metadata)
    assert all(encode(text, made) == encode(text) for text in TEXTS)


@pytest.mark.parametrize("number", [-1, 1 << 20, "2"])
def test_special_ids_out_of_range_are_refused(number: object) -> None:
    with pytest.raises(InvalidVocabulary, match="unknown_token_id"):
        Tokenizer.from_metadata(wordpiece_metadata(**{"tokenizer.ggml.unknown_token_id": number}))


def test_a_vocabulary_without_unknown_token_is_refused() -> None:
    metadata = {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": ["[CLS]", "[SEP]", "\u2581a"]}
    with pytest.raises(InvalidVocabulary, match=r"tokenizer.ggml.unknown_token_id.*WordPiece needs one"):
        Tokenizer.from_metadata(metadata)
