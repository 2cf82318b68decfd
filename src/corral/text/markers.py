"""Marker texts in a text that is still coming."""

from __future__ import annotations

import re


class Openings:
    """Texts to be looked for, none of them the beginning of another."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._longest = max(map(len, texts), default=0)
        self.search = re.compile("|".join(map(re.escape, texts)) if texts else r"(?!)").search

    def num_open(self, text: str, position: int) -> int:
        """Characters at the end of text[position:] that may still become one of the texts."""
        most = min(self._longest - 1, len(text) - position)
        lengths = range(most, 0, -1)
        return next((n for n in lengths if any(each.startswith(text[len(text) - n :]) for each in self._texts)), 0)
