from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import InvalidRequest, UnsupportedModel
from corral.text import byte_level
from corral.text.tokenizer import Tokenizer
from tests.support.tiny_vocab import bpe_metadata, spm_metadata
from tests.text.corpus import random_texts
from tests.text.toy_vocabulary import byte_level_metadata, sentencepiece_metadata

BPE, SPM = Tokenizer.from_metadata(bpe_metadata()), Tokenizer.from_metadata(spm_metadata())
START, END = 1, 2  # <|im_start|>, <|im_end|> of BPE
GUARD = "\ufdd0"


def plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special=False, parse_special=False)


@given(st.text().map(lambda text: text.replace("\u2581", "")), st.sampled_from([BPE, SPM]))
def test_decoding_gives_the_text_back(text: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(plain(tokenizer, text)) == text
    assert tokenizer.decode(tokenizer.encode(text, add_special=True, parse_special=False)) == text


@given(st.text(), st.sampled_from([BPE, SPM]))
def test_no_text_has_fewer_tokens_than_the_bound(text: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.min_num_tokens(text) <= len(plain(tokenizer, text))


def test_control_tokens_in_text_are_text_unless_they_are_parsed() -> None:
    text = "<|im_start|>a<|im_end|>"
    assert not {START, END} & set(plain(BPE, text))
    assert BPE.decode(plain(BPE, text)) == text
    ids = BPE.encode(text, add_special=False, parse_special=True)
    assert (ids[0], ids[-1]) == (START, END)


def test_bos_and_eos_are_added_as_the_file_says() -> None:
    metadata = bpe_metadata() | {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.encode("", add_special=True, parse_special=False) == [1, 2]
    assert tokenizer.encode("", add_special=False, parse_special=False) == []
    assert BPE.encode("", add_special=True, parse_special=False) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀"), ("\udc00\ud800", "\ufffd\ufffd"), ("\udcff", "\ufffd")],
)
@pytest.mark.parametrize("tokenizer", [BPE, SPM])
def test_surrogates_become_the_character_they_encode_or_a_replacement(
    tokenizer: Tokenizer, text: str, expected: str
) -> None:
    assert plain(tokenizer, text) == plain(tokenizer, expected)


def test_a_token_of_bytes_that_are_not_utf_8_decodes_and_is_never_made() -> None:
    metadata = spm_metadata()
    metadata["tokenizer.ggml.tokens"][-1] = "\udcff\udcfe"
    tokenizer = Tokenizer.from_metadata(metadata)
    last = tokenizer.vocab_size - 1
    assert tokenizer.token_bytes(last) == b"\xff\xfe"
    assert tokenizer.decode([last]) == "\ufffd\ufffd"
    assert last not in plain(tokenizer, "\ufffd\ufffdÿþ")


def test_an_empty_token_has_a_name_and_two_of_them_do_not_clash() -> None:
    metadata = spm_metadata()
    metadata["tokenizer.ggml.tokens"][-2:] = ["", ""]
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.token_bytes(tokenizer.vocab_size - 1) == b"[EMPTY_%d]" % (tokenizer.vocab_size - 1)


@pytest.mark.parametrize("token_id", [-1, BPE.vocab_size])
def test_ids_beyond_the_vocabulary_have_no_bytes(token_id: int) -> None:
    with pytest.raises(IndexError):
        BPE.token_bytes(token_id)


def test_merges_that_make_a_control_token_are_left_out() -> None:
    metadata = bpe_metadata()
    metadata["tokenizer.ggml.merges"] += ["~ ~"]
    metadata["tokenizer.ggml.tokens"][0] = "~~"
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.decode(plain(tokenizer, "~~~")) == "~~~"
    assert 0 not in plain(tokenizer, "~~~")


def test_a_merge_through_a_text_that_is_no_token_is_spelled_out() -> None:
    metadata = bpe_metadata()
    metadata["tokenizer.ggml.merges"] += ["~ ~", "~~ ~"]
    metadata["tokenizer.ggml.tokens"] += ["~~~"]
    metadata["tokenizer.ggml.token_type"] += [1]
    tokenizer = Tokenizer.from_metadata(metadata)
    assert plain(tokenizer, "~~~") == [tokenizer.vocab_size - 1]
    assert plain(tokenizer, "~~") == plain(tokenizer, "~") * 2


def test_kinds_that_take_whole_words_refuse_such_merges() -> None:
    metadata = bpe_metadata("llama-bpe")
    metadata["tokenizer.ggml.merges"] += ["~ ~"]
    with pytest.raises(UnsupportedModel, match="'~~'"):
        Tokenizer.from_metadata(metadata)


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "smollm", "gpt-2", "tekken", "default"])
def test_long_texts_are_cut_where_it_changes_nothing(pre: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_metadata(byte_level_metadata(pre))
    texts = [" ".join(random_texts(5, seed)) for seed in range(40)]
    whole = [plain(tokenizer, text) for text in texts]
    monkeypatch.setattr(byte_level, "_CHUNK_CHARS", 7)
    assert sum(len(list(byte_level._chunks(text))) for text in texts) > 100
    assert [plain(tokenizer, text) for text in texts] == whole


def test_a_text_without_borders_is_refused_beyond_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_level, "_CHUNK_CHARS", 100)
    monkeypatch.setattr(byte_level, "_MAX_CHUNK_CHARS", 400)
    assert BPE.decode(plain(BPE, "x " * 300)) == "x " * 300
    with pytest.raises(InvalidRequest, match="401 characters"):
        plain(BPE, " \n" * 200 + "x")


def test_a_chat_is_parsed_but_for_what_the_guard_broke_up() -> None:
    rendered = f"<|im_start|>user\n<{GUARD}|im_end|> hi<|im_end|>\n"
    ids = BPE.encode_chat(rendered, GUARD)
    assert ids == [START, *plain(BPE, "user\n<|im_end|> hi"), END, *plain(BPE, "\n")]


def test_user_defined_tokens_are_found_across_the_guard() -> None:
    tokenizer = Tokenizer.from_metadata(byte_level_metadata("qwen2"))
    think = tokenizer.vocab_size - 1
    assert think in tokenizer.encode_chat(f"a </th{GUARD}ink> b", GUARD)


@pytest.mark.parametrize(("rendered", "num_bos"), [("a", 1), ("<|im_start|>a", 1), ("a<|im_start|>", 2), ("", 1)])
def test_a_chat_has_bos_once_at_its_start_where_the_file_asks(rendered: str, num_bos: int) -> None:
    tokenizer = Tokenizer.from_metadata(bpe_metadata() | {"tokenizer.ggml.add_bos_token": True})
    ids = tokenizer.encode_chat(rendered, GUARD)
    assert ids[0] == tokenizer.bos_id
    assert ids.count(1) == num_bos


def test_a_chat_has_no_eos_at_its_end() -> None:
    tokenizer = Tokenizer.from_metadata(sentencepiece_metadata(**{"tokenizer.ggml.add_eos_token": True}))
    assert tokenizer.encode_chat("a", GUARD)[-1] != tokenizer.eos_id


@given(
    st.lists(st.sampled_from(["<s>", "</s>", "<|end|>", "<tool>", "  ", " ", "a", "<", "s>", "\n", "!"]), max_size=8)
)
def test_parsing_an_spm_text_decodes_to_it_without_its_control_tokens(parts: list[str]) -> None:
    metadata: dict[str, Any] = sentencepiece_metadata(**{"tokenizer.ggml.add_space_prefix": False})
    tokenizer = Tokenizer.from_metadata(metadata)
    text = "".join(parts)
    expected = text
    for control in ("<|end|>", "</s>", "<s>"):
        expected = expected.replace(control, "\0")
    assert tokenizer.decode(tokenizer.encode(text, add_special=False, parse_special=True)) == expected.replace("\0", "")
