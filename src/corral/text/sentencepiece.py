"""SentencePiece's BPE: any two neighbours whose joined text is a token may merge, the best score first."""

from __future__ import annotations

import heapq
import logging
import re

from corral.text.vocabulary import TokenType, Vocabulary

logger = logging.getLogger(__name__)

SPACE = "\u2581"  # stands for a space in token texts
_ID_BITS = 24  # MAX_TOKENS of vocabulary.py
_ID_MASK = (1 << _ID_BITS) - 1
_MAX_CACHED_WORDS = 1 << 14
_MAX_CACHED_CHARACTERS = 32


class SentencePieceBPE:
    """Encodes text without special tokens, as llama.cpp's SPM does.

    This is not the tokenizers library's BPE over merges derived from the scores, because that one cannot be made the
    same: its merges have distinct ranks, while tokens of equal score (Gemma has 6,415 of them) must merge from left
    to right whichever they are. It would also hold several merges for each of 262 k tokens.

    Time is O(n log n) in the length of a word, and words seldom have more than a dozen characters.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        barred = (TokenType.CONTROL, TokenType.UNKNOWN)  # never what plain text becomes; llama.cpp would merge into one
        typed = zip(vocabulary.tokens.to_list(), vocabulary.types, strict=True)
        ids = {text: i for i, (text, kind) in enumerate(typed) if kind not in barred}
        order = {score: rank for rank, score in enumerate(sorted(set(vocabulary.scores), reverse=True))}
        # Rank 0 merges first; equal scores have equal ranks. One dictionary for both, as it is the bulk of the memory.
        self._codes = {text: order[vocabulary.scores[i]] << _ID_BITS | i for text, i in ids.items()}
        self._words = _word_pattern(ids)
        self._byte_ids = _find_byte_ids(ids, vocabulary.unknown_id)
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in self._words.findall(text.replace(" ", SPACE)):
            if (word_ids := self._cache.get(word)) is None:
                word_ids = self._encode_word(word)
                if len(word) <= _MAX_CACHED_CHARACTERS:
                    if len(self._cache) >= _MAX_CACHED_WORDS:
                        self._cache.clear()
                    self._cache[word] = word_ids
            ids += word_ids
        return ids

    def _encode_word(self, word: str) -> list[int]:
        # A word is mostly not one token, and one that is need not be what merging ends at: no short cut.
        ends = self._merge(word)
        ids: list[int] = []
        begin = 0
        while begin < len(word):
            end = ends[begin]
            piece = word[begin:end]
            if (code := self._codes.get(piece)) is not None:
                ids.append(code & _ID_MASK)
            else:  # only ever a single character
                ids += (i for byte in piece.encode() if (i := self._byte_ids[byte]) is not None)
            begin = end
        return ids

    def _merge(self, word: str) -> list[int]:
        """Where the symbol beginning at each position ends after all merges; 0 where none begins."""
        code_of, size = self._codes.get, len(word)
        ends = list(range(1, size + 1))
        ends.append(0)
        begins = list(range(-1, size))  # begins[e]: where the symbol ending at e begins
        # Entries are rank << 32 | begin of the left symbol: among equal ranks the leftmost goes first. One whose
        # symbols have merged since is known by its rank, which is no longer that of the two now standing there.
        pairs = (code_of(word[begin : begin + 2]) for begin in range(size - 1))
        heap = [code >> _ID_BITS << 32 | begin for begin, code in enumerate(pairs) if code is not None]
        heapq.heapify(heap)
        while heap:
            entry = heapq.heappop(heap)
            begin = entry & 0xFFFFFFFF
            if not (middle := ends[begin]) or not (end := ends[middle]):
                continue
            if (code := code_of(word[begin:end])) is None or code >> _ID_BITS != entry >> 32:
                continue
            ends[begin], ends[middle] = end, 0
            begins[end] = begin
            if begin > 0:
                left = begins[begin]
                if (code := code_of(word[left:end])) is not None:
                    heapq.heappush(heap, code >> _ID_BITS << 32 | left)
            if end < size and (code := code_of(word[begin : ends[end]])) is not None:
                heapq.heappush(heap, code >> _ID_BITS << 32 | begin)
        return ends


def _find_byte_ids(ids: dict[str, int], unknown_id: int | None) -> list[int | None]:
    """For each byte its token: <0x41>, else the character, else the unknown token."""
    found: list[int | None] = []
    for byte in range(256):
        byte_id = ids.get(f"<0x{byte:02X}>")
        if byte_id is None and byte < 128:
            byte_id = ids.get(chr(byte))
        found.append(unknown_id if byte_id is None else byte_id)
    if missing := found.count(None):
        logger.info("the vocabulary has no token for %d of 256 bytes; they are left out of prompts", missing)
    return found


def _word_pattern(ids: dict[str, int]) -> re.Pattern[str]:
    """Matches stretches of text that no token crosses the border of.

    A border is a place before SPACE, after a character that no token has directly before a SPACE. Nearly all tokens
    have SPACE at their beginning only, so this cuts at nearly every space.
    """
    joined = {text[at - 1] for text in ids if text.rfind(SPACE) > 0 for at in range(1, len(text)) if text[at] == SPACE}
    inner = "".join(map(re.escape, sorted(joined - {SPACE})))
    # Spaces, then characters that are no space; after one of `inner` more spaces may follow.
    return re.compile(
        rf"{SPACE}*+(?:[^{SPACE}]++(?:(?<=[{inner}]){SPACE}++)?+)*+" if inner else rf"{SPACE}*+[^{SPACE}]*+"
    )
