"""Answers that know nothing but a constraint: tokens drawn at random from what it allows."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from corral.text.grammar.compile import GrammarCompiler
from corral.text.tokenizer import Tokenizer
from tests.text.toy_vocabulary import byte_level_metadata, sentencepiece_metadata

BYTE_LEVEL = Tokenizer.from_metadata(byte_level_metadata("qwen2"))
SENTENCEPIECE = Tokenizer.from_metadata(sentencepiece_metadata())
EXTRA_LOGITS = 70  # rows of a model's head beyond its tokenizer


def compiler_of(tokenizer: Tokenizer, **options: Any) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + EXTRA_LOGITS, **options)


def allowed_ids(constraint: Any, tokenizer: Tokenizer) -> list[int] | None:
    """What may come next; None if all may."""
    mask = np.full((tokenizer.vocab_size + EXTRA_LOGITS + 31) // 32, 0xFFFFFFFF, dtype=np.uint32)
    if not constraint.fill_mask(mask):
        return None
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    ids: list[int] = np.flatnonzero(bits).tolist()
    return ids


def walk(constraint: Any, tokenizer: Tokenizer, seed: int, max_tokens: int = 100) -> tuple[list[int], bool]:
    """The ids of one answer, and whether it came to an end."""
    rng = random.Random(seed)
    drawn: list[int] = []
    for _ in range(max_tokens):
        ids = allowed_ids(constraint, tokenizer)
        assert ids, "a constraint must allow something"
        assert ids[-1] < tokenizer.vocab_size
        ends = [token_id for token_id in ids if token_id in tokenizer.eog_ids]
        token_id = rng.choice(ends) if ends and rng.random() < 0.3 else rng.choice(ids)
        constraint.accept(token_id)
        if token_id in tokenizer.eog_ids:
            return drawn, True
        drawn.append(token_id)
    return drawn, False
