"""Texts of exactly so many tokens, of which no two begin alike unless they are meant to."""

from __future__ import annotations

import hashlib
import random

from corral.compare.workload import CountTokens, Message
from corral.errors import CorralError

# Common words, so that a text of them is about as many tokens; the exact number is counted.
_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face others level office door health person art war history party result change morning reason "
    "research girl guy moment air teacher force education"
)
WORDS = _TEXT.split()
_NONCE_WORDS = 4  # at the start, drawn from the seed: 118^4 of them


class NoSuchText(CorralError):
    """No text of the words has that many tokens in this vocabulary."""


def text_of(num_tokens: int, seed: str, count_tokens: CountTokens) -> str:
    """Random words that make exactly so many tokens; the same for the same seed.

    The first words are a nonce of the seed, so a cache of prefixes finds nothing of another text.

    Raises:
        NoSuchText: the vocabulary has no such text.
    """
    rng = random.Random(hashlib.sha256(seed.encode()).digest())  # noqa: S311 - no secret
    words: list[str] = []
    while (missing := num_tokens - count_tokens(" ".join(words))) > 0:
        words += rng.choices(WORDS, k=max(1, missing // 2))
    while words and count_tokens(" ".join(words)) > num_tokens:
        words.pop()
    for word in WORDS:  # a word of several tokens may have gone too far
        if count_tokens(" ".join(words)) == num_tokens:
            break
        if count_tokens(" ".join([*words, word])) <= num_tokens:
            words.append(word)
    if count_tokens(" ".join(words)) != num_tokens:
        raise NoSuchText(f"no text of {num_tokens} tokens found in this vocabulary (seed {seed!r})")
    return " ".join(words)


def with_nonce(text: str, seed: str) -> str:
    """`text` after a few words of the seed, which keep a cache of prefixes from answering it."""
    rng = random.Random(hashlib.sha256(f"{seed} nonce".encode()).digest())  # noqa: S311 - no secret
    return f"({' '.join(rng.choices(WORDS, k=_NONCE_WORDS))}) {text}"


def user(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def sized(num_tokens: int, template_tokens: int) -> int:
    """Tokens of a text that has, with those of the chat template around it, so many in all; at least one.

    A text of 4096 tokens becomes a prompt of 4109, and a server that works in steps of 4096 does twice the work.
    """
    return max(1, num_tokens - template_tokens)
