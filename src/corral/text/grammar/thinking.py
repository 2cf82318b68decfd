"""A constraint for answers that may begin with thinking: it may be anything, and may be given an end."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from corral.text.grammar.matcher import GrammarMatcher, Mask
from corral.text.reasoning import Markers
from corral.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from corral.text.grammar.vocabulary import GrammarVocabulary

MAX_SPACES = 4  # tokens of white space between the closing marker and the answer
_ALL = np.uint32(0xFFFFFFFF)


class Closing:
    """What may be written of a closing marker, for all requests of one model.

    Args:
        vocabulary: needed with a grammar only: it tells which tokens would end the thinking and begin the answer.
    """

    def __init__(self, markers: Markers, tokenizer: Tokenizer, vocabulary: GrammarVocabulary | None) -> None:
        self.opening_ids = tokenizer.encode(markers.opening, add_special=False, parse_special=True)
        self.closing_ids = tokenizer.encode(markers.closing, add_special=False, parse_special=True)
        self.opening = markers.opening.encode()
        self.closing = markers.closing.encode()
        self.tokenizer = tokenizer
        self._sorted: list[tuple[bytes, int]] = []
        self._overruns: dict[int, npt.NDArray[np.int64]] = {}
        self.spaces = np.empty(0, dtype=np.int64)
        self.never = np.empty(0, dtype=np.int64)  # ids that are no token, and ends of the answer
        if vocabulary is not None:
            ends = sorted(vocabulary.eog_ids - set(self.closing_ids))
            padding = range(tokenizer.vocab_size, vocabulary.num_words * 32)
            self.never = np.array([*ends, *padding], dtype=np.int64)
            texts = vocabulary.token_bytes
            self._sorted = sorted((text, token_id) for token_id, text in enumerate(texts) if text)
            self.spaces = np.array(
                [token_id for token_id, text in enumerate(texts) if text and text.isspace()], dtype=np.int64
            )
            self._overruns[0] = np.array(
                [
                    token_id
                    for token_id, text in enumerate(texts)
                    if self.closing in text and text.partition(self.closing)[2].strip()
                ],
                dtype=np.int64,
            )

    def overruns(self, num_written: int) -> npt.NDArray[np.int64]:
        """Tokens that end a marker of which so many bytes are written, and go on with more than white space."""
        if num_written not in self._overruns:
            rest = self.closing[num_written:]
            first = bisect.bisect_left(self._sorted, (rest, -1))
            found = list(self._overruns[0])
            for text, token_id in self._sorted[first:]:
                if not text.startswith(rest):
                    break
                if text[len(rest) :].strip():
                    found.append(token_id)
            self._overruns[num_written] = np.array(found, dtype=np.int64)
        return self._overruns[num_written]


class ThinkingConstraint:
    """Thinking and then an answer: a Constraint.

    While the model thinks all may be written, but no end of the answer if a grammar waits for one.

    Args:
        answer: of what comes after the thinking, or instead of it; None allows all.
        budget: tokens of thinking after which the closing marker is written for the model; None sets no limit.
        is_open: the prompt has opened the thinking.
    """

    def __init__(self, closing: Closing, answer: GrammarMatcher | None, budget: int | None, *, is_open: bool) -> None:
        self._closing = closing
        self._answer = answer
        self._budget = budget
        self._is_thinking = is_open
        self._is_answering = False  # nothing but the answer can come
        self._opened: int | None = None if is_open else 0  # tokens of the opening marker; None when it is written
        self._may_answer = not is_open  # what is written so far may be the beginning of the answer
        self._num_thought = 0
        self._tail = b""  # the end of the thinking, shorter than the closing marker
        self._forced: list[int] = []  # of the closing marker, still to come
        self._num_spaces: int | None = None  # tokens of white space after the closing marker, while they may come
        self._force_if_spent()

    def fill_mask(self, mask: Mask) -> bool:
        """As Constraint.fill_mask."""
        if self._forced:
            mask[:] = 0
            _set(mask, self._forced[:1])
            return True
        if self._is_thinking:
            return self._mask_thinking(mask)
        if self._answer is None:
            return False
        if self._may_answer:
            self._answer.fill_mask(mask)
        else:
            mask[:] = 0
        if self._opened is not None:
            _set(mask, self._closing.opening_ids[self._opened : self._opened + 1])
        if self._num_spaces is not None:
            _set(mask, self._closing.spaces)
        return True

    def accept(self, token_id: int) -> None:
        """As Constraint.accept."""
        if self._is_thinking:
            self._think(token_id)
        elif self._is_answering:
            self._say(token_id)
        else:
            self._begin(token_id)

    def copy(self) -> ThinkingConstraint:
        """As Constraint.copy."""
        twin = ThinkingConstraint.__new__(ThinkingConstraint)
        twin.__dict__.update(self.__dict__)
        twin._answer = None if self._answer is None else self._answer.copy()
        twin._forced = list(self._forced)
        return twin

    def _mask_thinking(self, mask: Mask) -> bool:
        if self._answer is None:
            return False
        mask[:] = _ALL
        _clear(mask, self._closing.never)
        _clear(mask, self._closing.overruns(0))
        for length in range(1, len(self._tail) + 1):
            if self._closing.closing.startswith(self._tail[-length:]):
                _clear(mask, self._closing.overruns(length))
        return True

    def _begin(self, token_id: int) -> None:
        """The prompt has opened nothing: the opening marker comes, or the answer."""
        opened = self._opened or 0
        continues = token_id == self._closing.opening_ids[opened]
        if self._answer is None:
            is_space = opened == 0 and self._closing.tokenizer.token_bytes(token_id).isspace()
            if is_space:
                return
        elif self._may_answer:
            self._may_answer = not continues or self._answer.accepts(token_id)
            if self._may_answer:
                self._answer.accept(token_id)
        if not continues:
            self._is_answering, self._opened = True, None
            return
        self._opened = opened + 1
        if self._opened == len(self._closing.opening_ids):
            self._opened, self._may_answer, self._is_thinking = None, False, True
            self._force_if_spent()

    def _think(self, token_id: int) -> None:
        self._num_thought += 1
        if self._forced:
            self._forced.pop(0)
        closing = self._closing.closing
        written = self._tail + self._closing.tokenizer.token_bytes(token_id)
        found = written.find(closing)
        if found < 0:
            self._tail = written[-(len(closing) - 1) :] if len(closing) > 1 else b""
            self._force_if_spent()
            return
        self._is_thinking, self._is_answering, self._may_answer = False, True, True
        self._forced = []
        self._num_spaces = 0

    def _force_if_spent(self) -> None:
        if self._is_thinking and self._budget is not None and self._num_thought >= self._budget and not self._forced:
            self._forced = list(self._closing.closing_ids)

    def _say(self, token_id: int) -> None:
        if self._answer is None:
            return
        if self._num_spaces is not None:
            is_space = self._closing.tokenizer.token_bytes(token_id).isspace()
            self._num_spaces = self._num_spaces + 1 if is_space and self._num_spaces + 1 < MAX_SPACES else None
            if is_space:
                return
        self._answer.accept(token_id)


def _set(mask: Mask, ids: list[int] | npt.NDArray[np.int64]) -> None:
    chosen = np.asarray(ids, dtype=np.int64)
    np.bitwise_or.at(mask, chosen >> 5, np.uint32(1) << (chosen & 31).astype(np.uint32))


def _clear(mask: Mask, ids: list[int] | npt.NDArray[np.int64]) -> None:
    chosen = np.asarray(ids, dtype=np.int64)
    np.bitwise_and.at(mask, chosen >> 5, ~(np.uint32(1) << (chosen & 31).astype(np.uint32)))
