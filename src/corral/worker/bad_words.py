"""Texts that an answer must not contain -> the token sequences that write them."""

from __future__ import annotations

from corral.text.tokenizer import Tokenizer


def bad_ids_of(words: tuple[str, ...], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """Each word as it is written by itself, and behind a space, as vLLM has it.

    The same text may be written by other tokens too; those are not forbidden.
    """
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        for text in (word, " " + word.lstrip()):
            ids = tuple(tokenizer.encode(text, add_special=False, parse_special=False))
            if ids:
                found[ids] = None
    return tuple(found)
