from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from corral.text.sentencepiece import SPACE, SentencePieceBPE
from corral.text.vocabulary import read_vocabulary
from tests.text.toy_vocabulary import sentencepiece_metadata

ALPHABET = "abc▁é"
pieces = st.lists(
    st.tuples(st.text(ALPHABET, min_size=2, max_size=5), st.integers(-5, 0)),
    max_size=40,
    unique_by=lambda entry: entry[0],
)


def metadata_of(entries: list[tuple[str, int]]) -> dict[str, object]:
    singles = [(character, -100) for character in ALPHABET if character != "é"]
    tokens = [("<unk>", 0), *((f"<0x{byte:02X}>", 0) for byte in range(256)), *singles, *entries]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _ in tokens],
        "tokenizer.ggml.scores": [float(score) for _, score in tokens],
        "tokenizer.ggml.token_type": [2, *[6] * 256, *[1] * (len(tokens) - 257)],
    }


def encode_by_definition(text: str, entries: list[tuple[str, int]]) -> list[str]:
    """Merges the best pair of neighbours, the leftmost of equals, until none is left."""
    scores = dict(entries)
    symbols = list(text.replace(" ", SPACE))
    while True:
        pairs = [(scores[a + b], -i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in scores]
        if not pairs:
            return symbols
        at = -max(pairs)[1]
        symbols[at : at + 2] = ["".join(symbols[at : at + 2])]


@given(pieces, st.text("abc é", max_size=30))
def test_merging_is_greedy_by_score_and_leftmost_among_equals(entries: list[tuple[str, int]], text: str) -> None:
    vocabulary = read_vocabulary(metadata_of(entries))
    symbols = encode_by_definition(text, entries)
    expected = [
        token
        for symbol in symbols
        for token in (["<0xC3>", "<0xA9>"] if vocabulary.index.find(symbol) is None else [symbol])
    ]
    assert [vocabulary.tokens[i] for i in SentencePieceBPE(vocabulary).encode(text)] == expected


def test_a_character_without_any_token_becomes_the_unknown_one() -> None:
    metadata = sentencepiece_metadata()
    tokens = [t.replace("<0xC3>", "<gone>") for t in metadata["tokenizer.ggml.tokens"]]
    kinds = [
        1 if text == "<gone>" else kind
        for text, kind in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
    ]
    vocabulary = read_vocabulary({**metadata, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds})
    ids = SentencePieceBPE(vocabulary).encode("ä")
    assert [tokens[i] for i in ids] == ["<unk>", "<0xA4>"]


def test_plain_text_never_merges_into_a_control_token() -> None:
    """llama.cpp merges `<s` and `>` into <s> here, although special tokens are not parsed."""
    metadata = sentencepiece_metadata()
    metadata["tokenizer.ggml.tokens"][259] = "<s"
    vocabulary = read_vocabulary(metadata)
    ids = SentencePieceBPE(vocabulary).encode("<s>")
    assert "".join(vocabulary.tokens[i] for i in ids) == "<s>"
    assert not vocabulary.special & set(ids)
