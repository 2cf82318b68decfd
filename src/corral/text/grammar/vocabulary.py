"""A model's tokens, as llguidance wants to know them."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from corral.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_SPECIAL = b"\xff"  # before a token that text never matches


class GrammarVocabulary:
    """The tokens of one model. Immutable; making it takes about a second for 262 144 tokens.

    Args:
        vocab_size: of the model's logits; ids that the tokenizer does not know are never allowed.

    Attributes:
        ll: what llguidance works with.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        from llguidance import LLTokenizer

        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.num_words = (vocab_size + 31) // 32
        self.eog_ids = frozenset(token_id for token_id in tokenizer.eog_ids if token_id < vocab_size)
        num_tokens = min(vocab_size, tokenizer.vocab_size)
        self.token_bytes = [
            b"" if tokenizer.is_special(token_id) else tokenizer.token_bytes(token_id) for token_id in range(num_tokens)
        ]
        known = [
            _SPECIAL + tokenizer.token_bytes(token_id) if tokenizer.is_special(token_id) else text
            for token_id, text in enumerate(self.token_bytes)
        ]
        known += [b""] * (vocab_size - num_tokens)
        # A model without an end-of-text token ends by its length only; llguidance wants to hear of one.
        ends = sorted(self.eog_ids) or [vocab_size - 1]
        self.ll: LLTokenizer = LLTokenizer(_Wrapper(tokenizer, known, ends[0]), eos_token=ends)  # type: ignore[arg-type]

    def terminal(self, text: str) -> str:
        """What stands for a marker in llguidance's Lark: its token if it is a control token, or else its text."""
        ids = self.tokenizer.encode(text, add_special=False, parse_special=True)
        if text in self.tokenizer.control_texts and len(ids) == 1:
            return f"<[{ids[0]}]>"
        return lark_text(text)

    @functools.cached_property
    def without_space(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tokens that begin with a space; those of them without which another token is left; that other token."""
        ids = {text: token_id for token_id, text in reversed(list(enumerate(self.token_bytes))) if text}
        spaced = [token_id for token_id, text in enumerate(self.token_bytes) if text.startswith(b" ")]
        pairs = [(token_id, ids[rest]) for token_id in spaced if (rest := self.token_bytes[token_id][1:]) in ids]
        with_rest, rest_ids = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return np.array(spaced, dtype=np.int64), with_rest, rest_ids


class _Wrapper:
    """What LLTokenizer asks for, by these names."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes], eos_id: int) -> None:
        self._tokenizer = tokenizer
        self.tokens = tokens
        self.eos_token_id = eos_id

    def __call__(self, text: str) -> list[int]:
        """The ids by which the model would write a text that the grammar forces."""
        return self._tokenizer.encode_within(text)


def lark_text(text: str) -> str:
    """A text as Lark's string: its escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)
