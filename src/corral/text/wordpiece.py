"""WordPiece, as BERT and its relatives have it: the tokenizers library's own pieces over a GGUF file's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from corral.errors import InvalidVocabulary
from corral.text.sentencepiece import SPACE
from corral.text.vocabulary import TokenType, Vocabulary, is_unicode

MAX_WORD_CHARS = 100  # a longer word is unknown, as in BERT's own tokenizer
_CHUNK_CHARS = 1 << 18
_SPACES = re.compile(r"[ \t\r\n]")
# Stands before a piece that continues a word. No text holds it: the normaliser takes control characters away.
_CONTINUES = "\0"
_CASED_SHARE = 0.01


class WordPiece:
    """Encodes text without special tokens, as the model was trained with.

    Words are cleaned of control characters, lower-cased and stripped of accents if the vocabulary is uncased, split at
    white space, punctuation and each Chinese character, and then into the longest pieces from the left. In the file a
    piece that begins a word begins with SPACE (llama.cpp's converter writes BERT's "word" and "##piece" as "▁word" and
    "piece").

    llama.cpp keeps combining marks that stand by themselves, takes Hangul apart, and has no limit on a word's length;
    here, as in BERT's own tokenizer, marks go, Hangul is taken apart too, and a word of more than 100 characters is
    unknown. It also lower-cases for vocabularies with capitals; here those keep them.

    Raises:
        InvalidVocabulary: there is no unknown token.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        unknown_id = vocabulary.unknown_id
        if unknown_id is None:
            raise InvalidVocabulary("tokenizer.ggml.unknown_token_id", "must be a token id: WordPiece needs one")
        barred = (TokenType.CONTROL, TokenType.UNKNOWN)  # never what plain text becomes
        texts = vocabulary.tokens.to_list()
        typed = enumerate(zip(texts, vocabulary.types, strict=True))
        pieces = {_key(text): i for i, (text, kind) in typed if kind not in barred and _is_piece(text)}
        unknown = "\0\0"  # a key that no word can be
        pieces[unknown] = unknown_id
        self.is_cased = _has_capitals(texts)
        self._tokenizer = tokenizers.Tokenizer(
            models.WordPiece(
                pieces,
                unk_token=unknown,
                max_input_chars_per_word=MAX_WORD_CHARS,
                continuing_subword_prefix=_CONTINUES,
            )
        )
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not self.is_cased)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def encode(self, text: str) -> list[int]:
        return [i for chunk in _chunks(text) for i in self._tokenizer.encode(chunk, add_special_tokens=False).ids]


def _key(text: str) -> str:
    return text[1:] if text.startswith(SPACE) else _CONTINUES + text


def _is_piece(text: str) -> bool:
    return len(text) > text.startswith(SPACE) and _CONTINUES not in text and is_unicode(text)


def _has_capitals(texts: list[str]) -> bool:
    """Whether the vocabulary was made of text with its capitals: an uncased one has hardly a token with any."""
    count = sum(text[1:2].isascii() and text[1:2].isupper() for text in texts if text.startswith(SPACE))
    return count > _CASED_SHARE * len(texts)


def _chunks(text: str) -> Iterator[str]:
    """The text in pieces that end at white space, which always ends a word: a long one need not be held twice."""
    begin = 0
    while len(text) - begin > _CHUNK_CHARS and (space := _SPACES.search(text, begin + _CHUNK_CHARS)):
        yield text[begin : space.start()]
        begin = space.start()
    yield text[begin:] if begin else text
