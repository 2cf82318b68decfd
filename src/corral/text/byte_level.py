"""Byte-level BPE: text -> words -> bytes written as printable characters -> merges, by the tokenizers library."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from corral.errors import InvalidRequest, InvalidVocabulary, UnsupportedModel
from corral.text.pre_split import PreSplit
from corral.text.vocabulary import TokenType, Vocabulary, are_unicode, is_unicode

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


def bytes_of(text: str) -> bytes:
    """The bytes that a token's text stands for; characters outside the alphabet stand for themselves."""
    try:
        return text.translate(_TO_LATIN1).encode("latin-1")
    except UnicodeEncodeError:
        byte_of = {character: bytes([byte]) for byte, character in enumerate(ALPHABET)}
        return b"".join(byte_of.get(c) or c.encode("utf-8", "surrogateescape") for c in text)


def block_of(texts: Sequence[str]) -> tuple[bytes, Iterable[int]]:
    """`bytes_of` of all texts, joined, and the length of each."""
    try:  # a character of the alphabet is a byte
        return "".join(texts).translate(_TO_LATIN1).encode("latin-1"), map(len, texts)
    except UnicodeEncodeError:
        pieces = [bytes_of(text) for text in texts]
        return b"".join(pieces), map(len, pieces)


class ByteLevelBPE:
    """Encodes text without special tokens, as llama.cpp's BPE does.

    The library is built from the vocabulary at each load: reading its own tokenizer.json back takes longer than
    building (0.35 s against 0.2 s of CPU for 152 k tokens) and twice the memory, so nothing is cached on disk.
    """

    def __init__(self, vocabulary: Vocabulary, pre_split: PreSplit) -> None:
        ids, merges, is_closed = _usable(vocabulary)
        self._num_tokens = len(vocabulary.tokens)
        self._spelled: dict[int, tuple[int, ...]] = {}
        if not is_closed:
            self._spell(ids, merges, pre_split)
        if missing := sum(character_id >= self._num_tokens for character_id in (ids[c] for c in ALPHABET)):
            logger.info("the vocabulary has no token for %d of 256 bytes; they are left out of prompts", missing)
        self._library = tokenizers.Tokenizer(
            models.BPE(vocab=ids, merges=merges, ignore_merges=pre_split.keeps_whole_words)
        )
        self._library.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre_split.patterns),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def _spell(self, ids: dict[str, int], merges: list[tuple[str, str]], pre_split: PreSplit) -> None:
        """Gives ids beyond the vocabulary to texts of merges that are no token.

        llama.cpp merges by text, also through texts that are no token; the library needs an id for each. Where such a
        text is left over it is written as llama.cpp writes it: the ASCII characters that are tokens, the others not at
        all.
        """
        for text in itertools.chain(ALPHABET, itertools.chain.from_iterable((a, b, a + b) for a, b in merges)):
            if text not in ids:
                placeholder = self._num_tokens + len(self._spelled)
                spelling = (ids.get(character, placeholder) for character in text if character.isascii())
                self._spelled[placeholder] = tuple(i for i in spelling if i < self._num_tokens)
                ids[text] = placeholder
                if pre_split.keeps_whole_words and len(text) > 1:
                    raise UnsupportedModel(f"tokenizer.ggml.merges makes {text!r:.80}, which is no token")

    def encode(self, text: str) -> list[int]:
        """The ids of `text`.

        Raises:
            InvalidRequest: millions of characters without a border between words.
        """
        return list(itertools.chain.from_iterable(map(self._encode_chunk, _chunks(text))))

    def _encode_chunk(self, text: str) -> list[int]:
        # The batch call gives up the GIL while it works; the plain one would hold every stream up.
        [encoding] = self._library.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self._spelled and ids and max(ids) >= self._num_tokens:
            spelled = self._spelled
            return list(itertools.chain.from_iterable(spelled.get(i, (i,)) for i in ids))
        return ids


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


def _usable(vocabulary: Vocabulary) -> tuple[dict[str, int], list[tuple[str, str]], bool]:
    """Texts that plain text may become, with their ids; the merges that lead to them; whether those name no others.

    The file's control and unknown tokens are not among them. (llama.cpp would let merges build one.)
    """
    tokens = vocabulary.tokens
    barred_kinds = {int(TokenType.CONTROL), int(TokenType.UNKNOWN)}
    barred = {text for text, kind in zip(tokens, vocabulary.types, strict=True) if kind in barred_kinds}
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    for text in barred:
        del ids[text]
    if not are_unicode(tokens):
        ids = {text: i for text, i in ids.items() if is_unicode(text)}
    pairs = _pairs(vocabulary.merges)
    named = itertools.chain(ALPHABET, itertools.chain.from_iterable(pairs), map("".join, pairs))
    if all(map(ids.__contains__, named)):
        return ids, pairs, True
    return ids, [pair for pair in pairs if pair[0] + pair[1] not in barred], False


def _pairs(merges: Sequence[str]) -> list[tuple[str, str]]:
    """Each merge's two parts, once: a repeated merge has the rank of its first place."""
    merges = list(dict.fromkeys(merges))
    parts = " ".join(merges).split(" ")
    pairs = list(zip(parts[::2], parts[1::2], strict=False))
    # All at once, for speed: right if each has two parts that are not empty.
    if "" not in parts and are_unicode(merges) and list(map(" ".join, pairs)) == merges:
        return pairs
    return [_pair(index, merge) for index, merge in enumerate(merges)]


def _pair(index: int, merge: str) -> tuple[str, str]:
    cut = merge.find(" ", 1)
    if cut < 0 or cut == len(merge) - 1 or " " in merge[cut + 1 :] or not is_unicode(merge):
        raise InvalidVocabulary("tokenizer.ggml.merges", f"merge {index} is {merge!r:.80}, which is no pair")
    return merge[:cut], merge[cut + 1 :]
