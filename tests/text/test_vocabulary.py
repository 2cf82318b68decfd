from __future__ import annotations

import logging
from typing import Any

import pytest

from corral.errors import InvalidModelFile, InvalidVocabulary, UnsupportedModel
from corral.text.pre_split import PRE_SPLITS
from corral.text.tokenizer import Tokenizer
from corral.text.vocabulary import read_vocabulary
from tests.support.tiny_vocab import bpe_metadata, spm_metadata

BPE, SPM = bpe_metadata(), spm_metadata()
NUM_TOKENS = len(BPE["tokenizer.ggml.tokens"])


def changed(metadata: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """`metadata` with other values; None takes a key out."""
    named = {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    return {key: value for key, value in (metadata | named).items() if value is not None}


def replaced(metadata: dict[str, Any], name: str, index: int, value: object) -> dict[str, Any]:
    entries = list(metadata[f"tokenizer.ggml.{name}"])
    entries[index] = value
    return changed(metadata, **{name: entries})


HOSTILE = {
    "no model": changed(BPE, model=None),
    "model is a number": changed(BPE, model=7),
    "pre is a list": changed(BPE, pre=["smollm"]),
    "no tokens": changed(BPE, tokens=None),
    "empty list of tokens": changed(BPE, tokens=[], token_type=[], merges=[]),
    "tokens are a text": changed(BPE, tokens="abc"),
    "a token is a number": replaced(BPE, "tokens", 5, 5),
    "a token is bytes": replaced(BPE, "tokens", 5, b"x"),
    "two tokens are the same": replaced(BPE, "tokens", 5, BPE["tokenizer.ggml.tokens"][6]),
    "a token of 100 kB": replaced(BPE, "tokens", 5, "x" * 100_000),
    "a special token of 2,000 characters": replaced(BPE, "tokens", 1, "x" * 2000),
    "too few types": changed(BPE, token_type=[1]),
    "too many types": changed(BPE, token_type=[1] * (NUM_TOKENS + 1)),
    "a type that does not exist": replaced(BPE, "token_type", 5, 99),
    "a negative type": replaced(BPE, "token_type", 5, -1),
    "a type is a text": replaced(BPE, "token_type", 5, "1"),
    "types are a number": changed(BPE, token_type=3),
    "no merges": changed(BPE, merges=None),
    "merges are pairs already": changed(BPE, merges=[["a", "b"]]),
    "a merge of one": replaced(BPE, "merges", 3, "ab"),
    "a merge of three": replaced(BPE, "merges", 3, "a b c"),
    "a merge with nothing right": replaced(BPE, "merges", 3, "ab "),
    "a merge with nothing left": replaced(BPE, "merges", 3, " ab"),
    "an empty merge": replaced(BPE, "merges", 3, ""),
    "a merge that is not UTF-8": replaced(BPE, "merges", 3, "a \udcff"),
    "too few scores": changed(SPM, scores=[0.0]),
    "a score that is not a number": replaced(SPM, "scores", 3, float("nan")),
    "an endless score": replaced(SPM, "scores", 3, float("inf")),
    "a score is a text": replaced(SPM, "scores", 3, "1"),
    "a byte token without a byte": replaced(BPE, "token_type", 9, 6),
    "a byte token of no hexadecimal": replaced(SPM, "tokens", 5, "<0xGG>"),
    **{
        f"{name} is {value!r}": changed(BPE, **{name: value})
        for name in ("bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "unknown_token_id")
        for value in (-1, NUM_TOKENS, 1 << 40, "1", 1.0, True, [1])
    },
    **{
        f"{name} is {value!r}": changed(BPE, **{name: value})
        for name in ("add_bos_token", "add_eos_token")
        for value in (1, "true")
    },
}


@pytest.mark.parametrize("metadata", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_metadata_is_refused_by_key(metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidModelFile, match=r"^tokenizer\.ggml\.[a-z_]+: .") as caught:
        Tokenizer.from_metadata(metadata)
    assert isinstance(caught.value, InvalidVocabulary)
    assert caught.value.path.startswith("tokenizer.ggml.")
    assert len(str(caught.value)) < 300


def test_special_tokens_that_nest_without_end_are_refused() -> None:
    tokens = [*SPM["tokenizer.ggml.tokens"], *("~" * n for n in range(1, 1000))]
    kinds = [*SPM["tokenizer.ggml.token_type"], *[3] * 999]
    with pytest.raises(InvalidVocabulary, match="begin with one another"):
        Tokenizer.from_metadata(changed(SPM, tokens=tokens, token_type=kinds, scores=None))


def test_an_unknown_tokenizer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedModel, match=r"'rwkv'.*gpt2, llama, bert"):
        Tokenizer.from_metadata(changed(BPE, model="rwkv"))


def test_an_unknown_pre_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedModel, match="'klingon'") as caught:
        Tokenizer.from_metadata(changed(BPE, pre="klingon"))
    assert all(name in str(caught.value) for name in PRE_SPLITS)


def test_a_file_without_pre_split_takes_the_default_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        vocabulary = read_vocabulary(changed(BPE, pre=None))
    assert vocabulary.pre_split == PRE_SPLITS["default"]
    assert "pre-tokenizer" in caplog.text


@pytest.mark.parametrize(("pre", "adds_bos"), [("llama-bpe", True), ("tekken", True), ("smollm", False)])
def test_some_kinds_add_bos_unless_the_file_says_otherwise(pre: str, adds_bos: bool) -> None:
    assert Tokenizer.from_metadata(changed(BPE, pre=pre, add_bos_token=None)).adds_bos is adds_bos
    assert not Tokenizer.from_metadata(changed(BPE, pre=pre, add_bos_token=False)).adds_bos


def test_bos_without_a_token_is_not_added_and_said(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer.from_metadata(changed(BPE, add_bos_token=True, bos_token_id=None))
    assert tokenizer.encode("a", add_special=True, parse_special=False) == tokenizer.encode(
        "a", add_special=False, parse_special=False
    )
    assert "BOS" in caplog.text


def with_tokens(*extra: tuple[str, int]) -> dict[str, Any]:
    tokens = [*BPE["tokenizer.ggml.tokens"], *(text for text, _ in extra)]
    kinds = [*BPE["tokenizer.ggml.token_type"], *(kind for _, kind in extra)]
    return changed(BPE, tokens=tokens, token_type=kinds)


def test_known_texts_end_an_answer_whatever_the_file_says_of_them() -> None:
    vocabulary = read_vocabulary(with_tokens(("<|eot_id|>", 1), ("<|eom_id|>", 4), ("<|fim_pad|>", 3), ("<x>", 3)))
    assert vocabulary.eog_ids == {0, 2, NUM_TOKENS, NUM_TOKENS + 1, NUM_TOKENS + 2}
    assert vocabulary.special >= {NUM_TOKENS, NUM_TOKENS + 1}


def test_the_end_of_a_channel_is_not_the_end_of_an_answer() -> None:
    vocabulary = read_vocabulary(with_tokens(("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3), ("<|channel|>", 3)))
    assert vocabulary.eog_ids & set(range(NUM_TOKENS, NUM_TOKENS + 4)) == {NUM_TOKENS + 1, NUM_TOKENS + 2}
    assert {NUM_TOKENS, NUM_TOKENS + 3} <= vocabulary.user_defined - vocabulary.special


def test_html_is_not_the_end_of_an_answer() -> None:
    vocabulary = read_vocabulary(with_tokens(("</s>", 4), ("<|tool_response>", 3)))
    assert NUM_TOKENS not in vocabulary.eog_ids | vocabulary.special | vocabulary.user_defined
