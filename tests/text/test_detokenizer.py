from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.text.detokenizer import Detokenizer
from corral.text.tokenizer import Tokenizer
from tests.support.tiny_vocab import bpe_metadata, spm_metadata

TOKENIZERS = [Tokenizer.from_metadata(bpe_metadata()), Tokenizer.from_metadata(spm_metadata())]
tokenizers = st.sampled_from(TOKENIZERS)


@given(st.data(), tokenizers)
def test_the_pieces_joined_are_the_text_for_every_way_to_cut_the_ids(data: Any, tokenizer: Tokenizer) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=5)))
    detokenizer = Detokenizer(tokenizer)
    texts = [detokenizer.push(ids[a:b]) for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    assert "".join([*texts, detokenizer.finish()]) == tokenizer.decode(ids)


# SentencePiece cannot tell its own mark of a space from a space.
@given(st.text().map(lambda text: text.replace("\u2581", "")), tokenizers)
def test_text_comes_back_whole_and_never_with_half_a_character(text: str, tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    texts = [detokenizer.push([token_id]) for token_id in ids]
    assert "".join(texts) == text
    assert detokenizer.finish() == ""


def test_bytes_are_held_back_until_their_character_is_whole() -> None:
    tokenizer = TOKENIZERS[0]
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode("😀", add_special=False, parse_special=False)
    assert len(ids) == 4
    assert [detokenizer.push([token_id]) for token_id in ids] == ["", "", "", "😀"]


def test_a_character_that_never_becomes_whole_is_replaced_at_the_end() -> None:
    tokenizer = TOKENIZERS[0]
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.push(tokenizer.encode("a😀", add_special=False, parse_special=False)[:-1]) == "a"
    assert detokenizer.finish() == "\ufffd"


def test_special_tokens_have_no_text() -> None:
    tokenizer = TOKENIZERS[0]
    ids = tokenizer.encode("<|im_start|>at<|im_end|>", add_special=False, parse_special=True)
    assert len(ids) < len("<|im_start|>")
    assert Detokenizer(tokenizer).push(ids) == "at"


@pytest.mark.parametrize(("is_continuation", "expected"), [(False, "the horses"), (True, " the horses")])
def test_the_first_words_space_is_real_only_when_text_goes_before(is_continuation: bool, expected: str) -> None:
    tokenizer = TOKENIZERS[1]
    ids = tokenizer.encode("the horses", add_special=False, parse_special=False)
    assert tokenizer.token_bytes(ids[0]).startswith(b" ")
    detokenizer = Detokenizer(tokenizer, is_continuation=is_continuation)
    assert "".join(detokenizer.push([i]) for i in ids) == expected
