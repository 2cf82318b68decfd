"""Token ids -> text as they come: whole characters only."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable

from corral.text.tokenizer import Tokenizer

_UTF8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """One answer's text, piece by piece. Each token costs time in its own bytes only.

    All that `push` and `finish` return, joined, is `Tokenizer.decode` of all ids.

    Args:
        tokenizer: the model's.
        is_continuation: the ids go on a text that is already there, as an answer to a raw prompt does. The space
            before a first word is then real; at the start of a text it is SentencePiece's own and taken away.
        shown: special tokens that have their text all the same, for whoever looks for it.
        shows_special: all of them have.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        is_continuation: bool = False,
        shown: Collection[int] = (),
        shows_special: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._shown = frozenset(shown)
        self._shows_special = shows_special
        self._decoder = _UTF8("replace")
        self._drops_space = tokenizer.adds_space_prefix and not is_continuation

    def push(self, ids: Iterable[int]) -> str:
        """The characters that are complete with these ids; special tokens have no text, but for those shown."""
        tokenizer, shown, shows_all = self._tokenizer, self._shown, self._shows_special
        pieces = (tokenizer.token_bytes(i) for i in ids if shows_all or i in shown or not tokenizer.is_special(i))
        return self._without_first_space(self._decoder.decode(b"".join(pieces)))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole."""
        return self._without_first_space(self._decoder.decode(b"", True))

    def _without_first_space(self, text: str) -> str:
        if text and self._drops_space:
            self._drops_space = False
            return text.removeprefix(" ")
        return text
