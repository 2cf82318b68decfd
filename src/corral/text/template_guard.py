"""Keeps what users write from becoming control tokens.

A rendered template is one text, in which control tokens are parsed. Where a user's own text holds the text of one, a
noncharacter is put inside it; Tokenizer.encode_chat takes it out again once the control tokens are found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from corral.errors import InvalidRequest
from corral.text.special_tokens import compile_any
from corral.text.vocabulary import is_unicode

NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))  # for internal use, never for interchange, says Unicode
_MAX_DEPTH = 64


class TemplateGuard:
    """Breaks up control tokens in user's text."""

    def __init__(self, control_texts: Collection[str], template_source: str) -> None:
        texts = [text for text in control_texts if is_unicode(text)]
        self._search = compile_any(texts).search if texts else None
        self._single = {text for text in texts if len(text) == 1}
        # A text may also end with the beginning of a control token whose rest the template or another text goes on to
        # write. (A text in the middle of one, as a role between <| and |>, is what templates are for.)
        self._beginnings = {text[:end] for text in texts for end in range(1, len(text))}
        self._endings = {text[begin:] for text in texts for begin in range(1, len(text))}
        self._longest = max(map(len, texts), default=0)
        taken = "".join(texts) + template_source
        self._candidates = [character for character in NONCHARACTERS if character not in taken]

    def choose(self, *values: Any, is_second: bool = False) -> str:
        """A noncharacter that occurs nowhere in `values`; a second one, for whoever needs another besides the guard.

        Raises:
            InvalidRequest: there is none, or the values are nested too deeply.
        """
        texts = [text for text in _texts(values, 0) if not text.isascii()]
        for character in reversed(self._candidates) if is_second else self._candidates:
            if not any(character in text for text in texts):
                return character
        raise InvalidRequest(
            "the messages use every noncharacter from U+FDD0 to U+FDEF; leave one out", param="messages"
        )

    def protect(self, value: Any, guard: str) -> Any:
        """A copy of a JSON-like value in which no text, and no key, holds the text of a control token."""
        if isinstance(value, str):
            return self._protect_text(value, guard)
        if isinstance(value, dict):
            return {self.protect(key, guard): self.protect(entry, guard) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self.protect(entry, guard) for entry in value]
        return value

    def _protect_text(self, text: str, guard: str) -> str:
        if self._search is None or not text:
            return text
        parts: list[str] = []
        position = copied = 0
        while match := self._search(text, position):
            begin = match.start()
            if text[begin] in self._single:
                parts += (text[copied:begin], guard)
                copied = begin
            if match.end() - begin > 1:
                parts += (text[copied : begin + 1], guard)
                copied = begin + 1
            position = begin + 1
        parts.append(text[copied:])
        lengths = range(1, min(len(text), self._longest - 1) + 1)
        if any(text[:length] in self._endings for length in lengths):
            parts.insert(0, guard)
        if any(text[-length:] in self._beginnings for length in lengths):
            parts.append(guard)
        return "".join(parts)


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Every text in a JSON-like value, keys included."""
    if depth > _MAX_DEPTH:
        raise InvalidRequest(f"the messages are nested more than {_MAX_DEPTH} levels deep", param="messages")
    if isinstance(value, str):
        yield value
    elif isinstance(value, Iterable):
        for entry in value:
            yield from _texts(entry, depth + 1)
        if isinstance(value, dict):
            for entry in value.values():
                yield from _texts(entry, depth + 1)
