"""Toy vocabularies that show every word border: any two neighbours inside a word merge."""

from __future__ import annotations

import unicodedata
from typing import Any

from tests.support.tiny_vocab import byte_alphabet
from tests.text.corpus import ALPHABET

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "</think>")


def byte_level_metadata(pre: str, *, missing_bytes: bytes = b"\x01\xf1", **changes: Any) -> dict[str, Any]:
    """`tokenizer.*` of a byte-level BPE vocabulary over corpus.ALPHABET.

    First the bytes of a character merge, then characters in pairs, then pairs; words of four characters are tokens.
    Some byte has no token, as in SmolLM2.
    """
    alphabet = byte_alphabet()
    tokens = [alphabet[byte] for byte in range(256) if byte not in missing_bytes]
    characters = sorted({character for character in ALPHABET if not set(character.encode()) & set(missing_bytes)})
    spelled = ["".join(alphabet[byte] for byte in character.encode()) for character in characters]
    merges = dict.fromkeys((text[:end], text[end]) for text in spelled for end in range(1, len(text)))
    pairs = [(left, right) for left in spelled for right in spelled if (ord(left[0]) + ord(right[-1])) % 3 != 0]
    merges |= dict.fromkeys(pairs)
    merges |= dict.fromkeys((a + b, c + d) for (a, b), (c, d) in zip(pairs, pairs[7:], strict=False))
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens = list(dict.fromkeys(tokens))
    num_plain = len(tokens)
    tokens += SPECIALS
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * num_plain + [3, 3, 3, 4],
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
        "tokenizer.ggml.bos_token_id": num_plain,
        "tokenizer.ggml.eos_token_id": num_plain + 2,
    }
    return metadata | changes


def sentencepiece_metadata(**changes: Any) -> dict[str, Any]:
    """`tokenizer.*` of a SentencePiece vocabulary with many equal scores, byte tokens and characters without token."""
    space = "\u2581"
    characters = list(dict.fromkeys("aBcsStTrReEé中09'!.<>|\n" + space))
    pairs = [a + b for a in characters for b in characters if (ord(a) + 3 * ord(b)) % 5 < 3]
    pairs = [pair for pair in pairs if pair not in ("<s", "s>")]  # or llama.cpp merges plain text into <s>
    longer = (
        [a + b for a, b in zip(pairs, pairs[11:], strict=False)] + [space * n for n in range(3, 9)] + ["あい", "あいう"]
    )
    plain = list(dict.fromkeys([*characters, *pairs, *longer]))
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *plain,
        "<tool>",
        "  ",
        "<|end|>",
        "<|endoftext|>",
    ]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(plain), 4, 4, 3, 3]
    scores = [0.0] * 259 + [-float(index // 7) for index in range(len(plain))] + [0.0] * 4
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return metadata | changes


def wordpiece_metadata(**changes: Any) -> dict[str, Any]:
    """`tokenizer.*` of an uncased WordPiece vocabulary, as llama.cpp's converter writes them.

    Characters begin words and continue them, all but a few; pairs of letters do in part, so that the longest piece
    matters; what BERT's normaliser takes away or rewrites (capitals, accents) is not there.
    """
    characters = sorted(
        {c for c in ALPHABET if is_plain(c)} | set("abcdefghijklmnopqrstuvwxyz0123456789!?.,'#[]-_ñж中字あ한é")
    )
    characters = [c for c in characters if c not in "qé"]
    letters = [c for c in characters if c.isalnum()]
    pairs = [a + b for a in letters for b in letters if (ord(a) + 3 * ord(b)) % 5 < 2]
    longer = [a + b for a, b in zip(pairs, pairs[11:], strict=False)]
    space = "\u2581"
    words = [space + text for text in [*characters, *pairs[::2], *longer[::3]]]
    pieces = [*(c for c in characters if c != "x"), *pairs[1::2], *longer[1::3]]
    specials = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    plain = [text for text in dict.fromkeys([*words, *pieces]) if text != space]
    tokens = [*specials, *plain]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 1, 3, 3, 3, 3] + [1] * len(plain),
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.bos_token_id": 3,
        "tokenizer.ggml.cls_token_id": 3,
        "tokenizer.ggml.eos_token_id": 4,
        "tokenizer.ggml.seperator_token_id": 4,
        "tokenizer.ggml.mask_token_id": 5,
    }
    return metadata | changes


def is_plain(character: str) -> bool:
    """Lower case, and the same after BERT's normaliser."""
    return character.isprintable() and character == unicodedata.normalize("NFD", character).lower() != " "
