"""Cuts special tokens out of a text, in llama.cpp's order: the longest token first, wherever it stands."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from corral.errors import InvalidVocabulary
from corral.text.vocabulary import is_unicode

_ASCII_SPACE = " \t\n\v\f\r"  # what C's isspace knows


@dataclass(frozen=True, slots=True)
class SpecialToken:
    id: int
    text: str
    strips_left: bool = False  # swallows white space before it
    strips_right: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """A token and what the splitter knows of it beforehand."""

    token: SpecialToken
    rank: int  # its place in llama.cpp's order; 0 goes first: most bytes, then lowest id
    shorter: _Entry | None  # the next shorter token that begins the same way
    is_unrivalled: bool  # shares no character with any token before it in the order, so it wins wherever it stands


class SpecialTokenSplitter:
    """Splits texts at a fixed set of tokens.

    llama.cpp goes through the tokens from the longest (in bytes) to the shortest and cuts each out of what is left of
    the text. That is a product of text and tokens, thousands in some vocabularies. Here one pass finds the places
    where any token begins, and a heap takes them in the same order: the result is the same.
    """

    def __init__(self, tokens: Iterable[SpecialToken]) -> None:
        usable = [token for token in tokens if token.text and is_unicode(token.text)]
        ordered = sorted(usable, key=lambda token: (-len(token.text.encode()), token.id))
        ranks: dict[str, tuple[int, bool]] = {}
        # White space that a neighbour may swallow is never safe.
        characters = set(_ASCII_SPACE) if any(t.strips_left or t.strips_right for t in ordered) else set()
        for rank, token in enumerate(ordered):
            ranks[token.text] = rank, characters.isdisjoint(token.text)
            characters.update(token.text)
        self._entries: dict[str, _Entry] = {}
        for token in sorted(usable, key=lambda token: len(token.text)):
            shorter = next(
                (e for n in range(len(token.text) - 1, 0, -1) if (e := self._entries.get(token.text[:n]))), None
            )
            self._entries[token.text] = _Entry(token, ranks[token.text][0], shorter, ranks[token.text][1])
        self._search = compile_any(self._entries).search if self._entries else None

    def split(self, text: str, guard: str | None = None) -> list[str | int]:
        """The pieces of `text` in order: token ids, and the non-empty texts between them.

        A token of one character directly after `guard` is no token: longer ones were broken up by the guard itself.
        """
        places = self._accepted(text, list(self._starts(text, guard)))
        pieces: list[str | int] = []
        position = 0
        for begin, end, token_begin, token_id in places:
            if begin > position:
                pieces.append(text[position:begin])
            if token_begin >= 0:
                pieces.append(token_id)
            position = end
        if position < len(text):
            pieces.append(text[position:])
        return pieces

    def _starts(self, text: str, guard: str | None) -> Iterator[tuple[int, int, str]]:
        """(rank, position, token text) of the longest token that begins at each position where one does."""
        position = 0
        while self._search and (match := self._search(text, position)):
            begin, found = match.start(), match[0]
            entry = self._entries[found]
            position = begin + 1
            if guard and len(found) == 1 and begin and text[begin - 1] == guard:
                continue
            yield entry.rank, begin, found
            if entry.is_unrivalled:  # nothing that overlaps it can come first; a long run of it costs one step each
                position = begin + len(found)

    def _accepted(self, text: str, heap: list[tuple[int, int, str]]) -> list[tuple[int, int, int, int]]:
        """(begin, end, token begin, id) of the tokens cut out, by position; [begin, end) has the stripped space too."""
        if not heap:
            return []
        heapq.heapify(heap)
        taken = bytearray(len(text) + 1)
        taken[-1] = 1  # the end, where stripping stops
        places: list[tuple[int, int, int, int]] = []
        while heap:
            _, begin, found = heapq.heappop(heap)
            if taken[begin]:
                continue
            blocked = taken.find(1, begin, begin + len(found))
            if blocked >= 0:
                if entry := self._fitting(found, blocked - begin):
                    heapq.heappush(heap, (entry.rank, begin, entry.token.text))
                continue
            token = self._entries[found].token
            first, last = begin, begin + len(found)
            if token.strips_left:
                while first > 0 and not taken[first - 1] and text[first - 1] in _ASCII_SPACE:
                    first -= 1
            if token.strips_right:
                while not taken[last] and text[last] in _ASCII_SPACE:
                    last += 1
            taken[first:last] = b"\1" * (last - first)
            places.append((first, last, begin, token.id))
        places.sort()
        return places

    def _fitting(self, found: str, room: int) -> _Entry | None:
        entry = self._entries[found].shorter
        while entry is not None and len(entry.token.text) > room:
            entry = entry.shorter
        return entry


def compile_any(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern for the longest of `texts` at a place.

    Raises:
        InvalidVocabulary: hundreds of texts begin with one another, deeper than the compiler of patterns goes.
    """
    try:
        return re.compile(_trie_pattern(texts))
    except RecursionError:
        raise InvalidVocabulary("tokenizer.ggml.tokens", "too many special tokens begin with one another") from None


def _trie_pattern(texts: Iterable[str]) -> str:
    """One branch per character, however many texts."""
    root: dict[str, dict[str, object]] = {}
    for text in texts:
        node: dict[str, object] = root  # type: ignore[assignment]
        for character in text:
            node = node.setdefault(character, {})  # type: ignore[assignment]
        node[""] = {}
    # Built from the leaves up, without recursion: token texts may be longer than Python's stack is deep.
    done: dict[int, str] = {}
    stack: list[tuple[dict[str, object], bool]] = [(root, False)]  # type: ignore[list-item]
    while stack:
        node, is_expanded = stack.pop()
        children = {key: child for key, child in node.items() if key}
        if not is_expanded:
            stack.append((node, True))
            stack.extend((child, False) for child in children.values())  # type: ignore[misc]
            continue
        branches = [re.escape(key) + done.pop(id(child)) for key, child in children.items()]
        pattern = "|".join(branches)
        if "" in node:
            pattern = f"(?:{pattern})?" if branches else ""
        elif len(branches) > 1:
            pattern = f"(?:{pattern})"
        done[id(node)] = pattern
    return done[id(root)]
