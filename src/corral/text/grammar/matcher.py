"""One answer on its way through a grammar."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from corral.errors import CorralError, InvalidRequest
from corral.text.grammar.vocabulary import GrammarVocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher

Mask = npt.NDArray[np.uint32]

logger = logging.getLogger(__name__)


class GrammarMatcher:
    """A compiled grammar and how far an answer has come in it: a Constraint.

    Args:
        matcher: at the beginning of an answer; nobody else uses it.
        drops_space: the text of the answer loses a space it begins with, as SentencePiece wants it; the grammar
            is about the text without.
    """

    def __init__(self, matcher: LLMatcher, vocabulary: GrammarVocabulary, *, drops_space: bool = False) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._drops_space = drops_space  # still to come

    def fill_mask(self, mask: Mask) -> bool:
        """As Constraint.fill_mask.

        Raises:
            CorralError: the grammar has become too complex here, or the vocabulary cannot write what it wants.
        """
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._matcher.is_error():
            raise self._failure()
        if self._drops_space:
            self._shift(mask)
        if not mask.any():
            raise InvalidRequest("the grammar wants a text here that no token of the model can write", param="grammar")
        return True

    def accept(self, token_id: int) -> None:
        """As Constraint.accept."""
        if self._drops_space:
            self._drops_space = False
            _, spaced, rest = self._vocabulary.without_space
            found = np.flatnonzero(spaced == token_id)
            if found.size:
                token_id = int(rest[found[0]])
        if self._matcher.is_stopped() and token_id in self._vocabulary.eog_ids:
            return
        if not self._matcher.consume_token(token_id):
            raise self._failure()

    def accepts(self, token_id: int) -> bool:
        """Whether the token may come next."""
        if self._matcher.is_stopped():
            return token_id in self._vocabulary.eog_ids
        return bool(self._matcher.validate_tokens([token_id]) == 1)

    def copy(self) -> GrammarMatcher:
        """As Constraint.copy."""
        return GrammarMatcher(self._matcher.deep_copy(), self._vocabulary, drops_space=self._drops_space)

    def _shift(self, mask: Mask) -> None:
        """A token that begins with a space may come where the rest of it may."""
        every, spaced, rest = self._vocabulary.without_space
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
        allowed = bits[rest].copy()
        bits[every] = 0
        bits[spaced] = allowed
        mask[:] = np.packbits(bits, bitorder="little").view(np.uint32)

    def _failure(self) -> CorralError:
        error = self._matcher.get_error()
        logger.info("a grammar failed while the answer was written; its client is told why")  # the text may quote both
        return InvalidRequest(
            f"the grammar became too complex while the answer was written: {reason_of(error)}", param="grammar"
        )


def reason_of(error: str) -> str:
    """llguidance's reason, in one line and without its inner state."""
    if error.startswith("panic:"):
        return "it could not be worked out"
    error = error.partition("<non-verbose/>")[0].partition("<state>")[0].partition("<backtrace>")[0]
    reason = " ".join(error.split())
    if reason in ("NoExtensionBias", "NoExtension"):
        return "no text matches it"
    return reason[:500] or "it could not be worked out"
