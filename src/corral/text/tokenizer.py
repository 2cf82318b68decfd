"""Text <-> token ids, as the model's file says and as llama.cpp does it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from corral.errors import InvalidVocabulary
from corral.text import byte_level
from corral.text.byte_level import ByteLevelBPE
from corral.text.sentencepiece import SPACE, SentencePieceBPE
from corral.text.special_tokens import SpecialToken, SpecialTokenSplitter
from corral.text.vocabulary import TokenType, Vocabulary, ids_of_types, read_vocabulary, token_bytes_of
from corral.text.wordpiece import WordPiece

logger = logging.getLogger(__name__)


class Tokenizer:
    """A model's tokenizer. Immutable, and safe to use from several threads.

    Attributes:
        vocab_size: ids are [0, vocab_size).
        bos_id, eos_id: None when the file names none.
        eog_ids: ids that end an answer.
        adds_bos, adds_eos: what `encode` adds with `add_special`.
        adds_space_prefix: SentencePiece puts a space before a text's first word, so decoding takes one away;
            WordPiece's words all begin with one.
        control_texts: texts of the tokens that only a template may write; see ChatTemplate.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        pre_split = vocabulary.pre_split
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.eog_ids = vocabulary.eog_ids
        self.adds_bos = _can_add("bos", vocabulary.add_bos, vocabulary.bos_id)
        self.adds_eos = _can_add("eos", vocabulary.add_eos, vocabulary.eos_id)
        self.adds_space_prefix = vocabulary.add_space_prefix and pre_split is None
        self.control_texts = frozenset(vocabulary.tokens[i] for i in vocabulary.special)
        self._special = vocabulary.special
        self._pieces = _Pieces(vocabulary)
        self._is_wordpiece = vocabulary.model == "bert"
        self._model = _model_of(vocabulary)
        self._all_tokens = _splitter(vocabulary, vocabulary.special | vocabulary.user_defined)
        self._plain_tokens = _splitter(vocabulary, vocabulary.user_defined - vocabulary.special)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a GGUF file's metadata describes.

        Raises:
            UnsupportedModel: an unknown kind of tokenizer or pre-split.
            InvalidVocabulary: damaged or hostile metadata.
        """
        return cls(read_vocabulary(metadata))

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The ids of `text`.

        Args:
            add_special: add BOS and EOS where the file asks for them.
            parse_special: texts of control tokens become these tokens; otherwise they are text like any other.
        """
        splitter = self._all_tokens if parse_special else self._plain_tokens
        ids = [self.bos_id] if add_special and self.adds_bos and self.bos_id is not None else []
        ids += self._encode_pieces(splitter.split(_well_formed(text)))
        if add_special and self.adds_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def encode_chat(self, rendered: str, guard: str) -> list[int]:
        """The ids of a rendered chat template: its control tokens are parsed, what users wrote is text.

        BOS is added where the file asks for it and the template has not; EOS never, as the answer comes next.
        `guard` is the character by which ChatTemplate.render broke up control tokens in what users wrote.
        """
        pieces: list[str | int] = []
        for piece in self._all_tokens.split(_well_formed(rendered), guard):
            if isinstance(piece, str) and guard in piece:
                pieces += self._plain_tokens.split(piece.replace(guard, ""))
            else:
                pieces.append(piece)
        ids = self._encode_pieces(pieces)
        if self.adds_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def encode_within(self, text: str) -> list[int]:
        """The ids of a text that goes on from another: nothing is added, and control tokens are text."""
        ids: list[int] = []
        for piece in self._plain_tokens.split(_well_formed(text)):
            ids += [piece] if isinstance(piece, int) else self._model.encode(piece)
        return ids

    def _encode_pieces(self, pieces: Iterable[str | int]) -> list[int]:
        ids: list[int] = []
        is_after_token = True  # the start of a text counts as one
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
            else:
                prefix = " " if self.adds_space_prefix and is_after_token else ""
                ids += self._model.encode(prefix + piece)
            is_after_token = isinstance(piece, int)
        return ids

    def min_num_tokens(self, text: str) -> int:
        """A lower bound of the length of `encode(text)`, at once: a hopelessly long prompt need not be encoded.

        Bytes that the vocabulary has no token for, and that encoding leaves out, count here.
        """
        if self._is_wordpiece or not text:  # a word of any length may be one unknown token
            return 0
        return -(-len(text) // self._pieces.longest)

    @property
    def longest_token(self) -> int:
        """Characters that the longest token stands for: no text of n tokens has more than n times as many."""
        return self._pieces.longest

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; for a control token the text it is written as."""
        return self._pieces[token_id]

    def is_special(self, token_id: int) -> bool:
        """Whether the token is a control token: never shown."""
        return token_id in self._special

    def decode(self, ids: Iterable[int]) -> str:
        """The text of whole ids, without special tokens; bytes that are not UTF-8 become U+FFFD.

        SentencePiece's space before the first word is taken away again.
        """
        text = b"".join(self._pieces[i] for i in ids if i not in self._special).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.adds_space_prefix else text


def _model_of(vocabulary: Vocabulary) -> SentencePieceBPE | ByteLevelBPE | WordPiece:
    """What encodes text without special tokens."""
    if vocabulary.model == "bert":
        return WordPiece(vocabulary)
    return (
        SentencePieceBPE(vocabulary) if vocabulary.pre_split is None else ByteLevelBPE(vocabulary, vocabulary.pre_split)
    )


class _Pieces:
    """The bytes of every token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokens = vocabulary.tokens
        self._bytes_of = _spm_bytes if vocabulary.pre_split is None else byte_level.bytes_of
        odd_kinds = set(TokenType) - {TokenType.NORMAL}
        odd = vocabulary.special.union(ids_of_types(vocabulary.types, *odd_kinds))
        # Of tokens that are not simply text.
        self._odd = {token_id: _odd_piece(vocabulary, token_id) for token_id in odd}
        # A token that stands for nothing may still be what some text becomes.
        self.longest = max(vocabulary.tokens.longest_characters, *map(len, self._odd.values()), 1)

    def __getitem__(self, token_id: int) -> bytes:
        if token_id < 0:
            raise IndexError(f"token id {token_id} is negative")
        if (piece := self._odd.get(token_id)) is not None:
            return piece
        return self._bytes_of(self._tokens[token_id])


def _odd_piece(vocabulary: Vocabulary, token_id: int) -> bytes:
    text = vocabulary.tokens[token_id]
    if token_id in vocabulary.special:
        return token_bytes_of(text)
    if vocabulary.types[token_id] == TokenType.BYTE:
        return _byte_piece(token_id, text)
    # Neither is an unused one: padding of the embedding matrix.
    return token_bytes_of(text) if token_id in vocabulary.user_defined else b""


def _spm_bytes(text: str) -> bytes:
    return token_bytes_of(text.replace(SPACE, " "))


def _byte_piece(token_id: int, text: str) -> bytes:
    """The byte that <0x41> stands for."""
    try:
        if text.startswith("<0x") and text.endswith(">") and len(text) == 6:
            return bytes.fromhex(text[3:5])
    except ValueError:
        pass
    raise InvalidVocabulary("tokenizer.ggml.tokens", f"byte token {token_id} is {text!r:.80}; it must look like <0x41>")


def _splitter(vocabulary: Vocabulary, ids: Iterable[int]) -> SpecialTokenSplitter:
    return SpecialTokenSplitter(
        SpecialToken(i, vocabulary.tokens[i], i in vocabulary.strips_left, i in vocabulary.strips_right) for i in ids
    )


def _can_add(name: str, wanted: bool, token_id: int | None) -> bool:
    if wanted and token_id is None:
        logger.warning("the file asks for %s to be added and does not say which token that is; none is", name.upper())
    return wanted and token_id is not None


def _well_formed(text: str) -> str:
    """Surrogates, which JSON can smuggle in, become the character they encode in pairs, or U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
