"""Byte-level BPE: text -> words -> bytes, by the tokenizers library; bytes -> merges, by the native core."""

from __future__ import annotations

import itertools
import logging
import re
from array import array
from collections.abc import Iterator

import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from corral._native import BytePairEncoder, find_bad_merge
from corral.errors import InvalidRequest, InvalidVocabulary, UnsupportedModel
from corral.text.pre_split import PreSplit
from corral.text.vocabulary import TokenType, Vocabulary

logger = logging.getLogger(__name__)

_BORDER = re.compile("[A-Za-z](?= )")
_CHUNK_CHARS = 1 << 20
_MAX_CHUNK_CHARS = 4 << 20


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte: itself where that is printable, else U+0100 upwards, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


ALPHABET = byte_alphabet()
_TO_LATIN1 = {ord(character): byte for byte, character in enumerate(ALPHABET)}
# Latin-1 characters that stand for no byte become a character that Latin-1 cannot encode.
_TO_LATIN1.update({code: 0xFFFF for code in range(256) if chr(code) not in ALPHABET})
# What a text is split into: a byte, plus 256 unless it begins a word. The core's BytePairEncoder takes the same.
_CONTINUATION = "\0"  # no character of the alphabet
_UNITS = {character: byte for byte, character in enumerate(ALPHABET)}
_UNITS |= {_CONTINUATION + character: 256 + byte for byte, character in enumerate(ALPHABET)}
_IS_USABLE = bytes(kind not in (TokenType.CONTROL, TokenType.UNKNOWN) for kind in range(256))


def bytes_of(text: str) -> bytes:
    """The bytes that a token's text stands for; characters outside the alphabet stand for themselves."""
    try:
        return text.translate(_TO_LATIN1).encode("latin-1")
    except UnicodeEncodeError:
        byte_of = {character: bytes([byte]) for byte, character in enumerate(ALPHABET)}
        return b"".join(byte_of.get(c) or c.encode("utf-8", "surrogateescape") for c in text)


class ByteLevelBPE:
    """Encodes text without special tokens, as llama.cpp's BPE does.

    The tokenizers library splits the text into words and the words into bytes; the core merges those. The library's own
    merging would be as fast, but takes ten times as long to build.
    """

    def __init__(self, vocabulary: Vocabulary, pre_split: PreSplit) -> None:
        self._merging = _merging(vocabulary, pre_split)
        if missing := self._merging.num_missing_bytes:
            logger.info("the vocabulary has no token for %d of 256 bytes; they are left out of prompts", missing)
        self._splitting = tokenizers.Tokenizer(
            models.BPE(vocab=_UNITS, merges=[], continuing_subword_prefix=_CONTINUATION)
        )
        self._splitting.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre_split.patterns),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def encode(self, text: str) -> list[int]:
        """The ids of `text`.

        Raises:
            InvalidRequest: millions of characters without a border between words.
        """
        return list(itertools.chain.from_iterable(map(self._encode_chunk, _chunks(text))))

    def _encode_chunk(self, text: str) -> list[int]:
        # The batch call gives up the GIL while it works; the plain one would hold every stream up.
        [encoding] = self._splitting.encode_batch_fast([text], add_special_tokens=False)
        return self._merging.encode(array("H", encoding.ids))


def _chunks(text: str) -> Iterator[str]:
    """`text` in parts of about a million characters, cut where every kind of pre-split has a border.

    The library takes a hundred bytes of memory per character, and its patterns give up, in a panic, after ten
    million steps within one word.
    """
    begin = 0
    while len(text) - begin > _CHUNK_CHARS:
        border = _BORDER.search(text, begin + _CHUNK_CHARS)
        end = border.end() if border else len(text)
        if end - begin > _MAX_CHUNK_CHARS:
            raise InvalidRequest(
                f"the text has {end - begin} characters without a space after a letter; {_MAX_CHUNK_CHARS} are allowed"
            )
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _merging(vocabulary: Vocabulary, pre_split: PreSplit) -> BytePairEncoder:
    # Plain text never becomes a control or unknown token, though llama.cpp would let merges build one.
    is_usable = vocabulary.types.translate(_IS_USABLE)
    try:
        encoder = BytePairEncoder(
            vocabulary.tokens, vocabulary.index, vocabulary.merges, is_usable, pre_split.keeps_whole_words
        )
    except ValueError as error:
        fault = str(error)
        if (bad := find_bad_merge(vocabulary.merges)) is not None:
            fault = f"merge {bad} is {vocabulary.merges[bad]!r:.80}, which is no pair"
        raise InvalidVocabulary("tokenizer.ggml.merges", fault) from error
    if pre_split.keeps_whole_words and encoder.first_unnamed is not None:
        raise UnsupportedModel(f"tokenizer.ggml.merges makes {encoder.first_unnamed!r:.80}, which is no token")
    return encoder
