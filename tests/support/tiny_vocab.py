"""Tiny but real vocabularies: byte-level BPE and SentencePiece, learnt from the text below, as GGUF metadata."""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from functools import cache
from typing import Any

CORPUS = """
The shepherd opened the corral at dawn, and the horses ran into the wide green valley. One of them, the smallest,
stayed near the gate and looked at the shepherd, as if it wanted to know the name of the river below. Where does the
water come from? The water comes from the mountains, where the snow melts in the spring, said the shepherd. In the
evening the horses came back, one after the other, and the gate was closed behind them. def main(): return 42
for i in range(10): print(i, 2 * i) # 0 1 2 3 4 5 6 7 8 9 The server answers when the engine is running.
"""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NUM_MERGES = 201  # vocabularies of 460 (BPE) and an odd number (SPM): no multiples of 16
_SPACE = "\u2581"  # SentencePiece's mark of a space


class TokenType(enum.IntEnum):
    """llama.cpp's token types."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    BYTE = 6


def bpe_metadata(pre: str = "smollm") -> dict[str, Any]:
    """`tokenizer.*` of a GPT-2 style vocabulary; token 0 is <|endoftext|>, 1 and 2 are ChatML's marks."""
    alphabet = byte_alphabet()
    words = ["".join(alphabet[byte] for byte in word.encode()) for word in _words(" ")]
    merges = _learn_merges(tuple(words))
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*specials, *(alphabet[byte] for byte in range(256)), *(left + right for left, right in merges)]
    kinds = [TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }


def spm_metadata(*, add_space_prefix: bool = True) -> dict[str, Any]:
    """`tokenizer.*` of a SentencePiece vocabulary with byte fallback; <unk>, <s>, </s> are 0, 1, 2."""
    words = tuple(_words(_SPACE))
    merges = _learn_merges(words)
    characters = sorted({character for word in words for character in word})
    pieces = [*(left + right for left, right in merges), *characters]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(pieces)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(rank) for rank in range(len(pieces))],
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": add_space_prefix,
    }


def byte_alphabet() -> dict[int, str]:
    """GPT-2's byte -> visible character."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    alphabet = {byte: chr(byte) for byte in visible}
    hidden = (byte for byte in range(256) if byte not in alphabet)
    alphabet.update({byte: chr(256 + index) for index, byte in enumerate(hidden)})
    return alphabet


def _words(space: str) -> list[str]:
    return [space + word for word in CORPUS.split()]


@cache
def _learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """The NUM_MERGES most frequent pairs, one after another; ties go to the first in alphabetical order."""
    counts = Counter(words)
    pieces = {word: list(word) for word in counts}
    merges: list[tuple[str, str]] = []
    while len(merges) < NUM_MERGES:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            raise ValueError(f"the corpus is exhausted after {len(merges)} merges")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merge(parts, best) for word, parts in pieces.items()}
    return merges


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged
