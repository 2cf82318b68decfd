"""Takes what a model thinks apart from what it answers, while it comes."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

from corral.text.harmony import CHANNEL, END, MARKERS, MESSAGE, START, HarmonySplitter
from corral.text.tokenizer import Tokenizer

_PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("Here is my thought process:", "Here is my response:"),  # Granite 3.2
)
_GEMMA = ("<|channel>thought", "<channel|>")
_RESPONSE = ("<response>", "</response>")  # around Granite's answer
# What a Go template writes around a message's thinking: the last mark before it, the first after it.
_AROUND = re.compile(
    r"([<\[][^<>\[\]{}\s]{1,40}[>\]])\s*\{\{-?\s*\$?\w*\.Thinking\s*-?\}\}\s*([<\[]/?[^<>\[\]{}\s]{1,40}[>\]])"
)


@dataclass(frozen=True, slots=True)
class Markers:
    """What a model writes before and after its thinking.

    Args:
        ids: those tokens of the markers that are special.
        answer: what the model may write around its answer, after thinking.
        is_constant: they come even where thinking is off.
        is_harmony: gpt-oss's messages on channels; then the answer has an opening for sure.
    """

    opening: str
    closing: str
    ids: frozenset[int] = frozenset()
    answer: tuple[str, str] = ("", "")
    is_constant: bool = False
    is_harmony: bool = False


def markers_of(source: str, tokenizer: Tokenizer) -> Markers | None:
    """The markers that a template knows; a pair whose end it mentions, as some open it in the prompt only.

    Markers that are control tokens are looked up in the vocabulary, as their text is not shown otherwise.
    """
    if CHANNEL in source and MESSAGE in source:
        final = f"{START}assistant{CHANNEL}final{MESSAGE}"
        ids = ids_of(MARKERS, tokenizer)
        return Markers(f"{CHANNEL}analysis{MESSAGE}", END, ids, (final, ""), is_constant=True, is_harmony=True)
    if "<|channel>" in source:
        return Markers(*_GEMMA, ids_of(_GEMMA, tokenizer), is_constant=True)
    around = _AROUND.search(source)
    pair = (around[1], around[2]) if around else None
    if pair is None:
        pair = next((each for each in _PAIRS if each[1] in source or each[0] in source), None)
    if pair is None and re.search(r"\benable_thinking\b|\breasoning_content\b|\.Think\b|\.Thinking\b", source):
        pair = _PAIRS[0]
    if pair is None:
        return None
    return Markers(*pair, ids_of(pair, tokenizer), _RESPONSE if _RESPONSE[0] in source else ("", ""))


def ids_of(texts: Iterable[str], tokenizer: Tokenizer) -> frozenset[int]:
    """The control tokens in `texts`."""
    ids = (tokenizer.encode(text, add_special=False, parse_special=True) for text in texts)
    return frozenset(i for each in ids for i in each if tokenizer.is_special(i))


def opens_thinking(prompt: str, markers: Markers) -> bool:
    """Whether the prompt ends within thinking: its template has opened it for the model."""
    return prompt.rstrip().endswith(markers.opening)


def make_splitter(markers: Markers, prompt: str, *, is_open: bool) -> HarmonySplitter | ReasoningSplitter:
    """What takes one answer to `prompt` apart."""
    return HarmonySplitter(prompt) if markers.is_harmony else ReasoningSplitter(markers, is_open=is_open)


class _State(enum.Enum):
    START = enum.auto()  # white space so far, and perhaps the beginning of the opening marker
    THINKING_BEGINS = enum.auto()
    THINKING = enum.auto()
    ANSWER_BEGINS = enum.auto()
    WRAPPED = enum.auto()  # an answer whose end may be marked
    ANSWER = enum.auto()


class ReasoningSplitter:
    """One answer. Only what it begins with can be thinking; white space around the markers is left out.

    Args:
        markers: of the template.
        is_open: the prompt has opened the thinking already.
    """

    def __init__(self, markers: Markers, *, is_open: bool) -> None:
        self._markers = markers
        self._state = _State.THINKING_BEGINS if is_open else _State.START
        self._held = ""  # text whose side is not known yet

    def push(self, text: str) -> tuple[str, str]:
        """(thinking, answer) that are certain now."""
        if self._state is _State.ANSWER:
            return "", text
        self._held += text
        if self._state is _State.START:
            self._start()
        thinking = self._think() if self._state in (_State.THINKING_BEGINS, _State.THINKING) else ""
        return thinking, self._answer()

    def finish(self) -> tuple[str, str]:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if self._state in (_State.THINKING_BEGINS, _State.THINKING):
            return held.rstrip(), ""
        if self._state is _State.WRAPPED and held.rstrip().endswith(self._markers.answer[1]):
            return "", held.rstrip().removesuffix(self._markers.answer[1])
        return "", "" if self._state is _State.ANSWER_BEGINS else held

    def _start(self) -> None:
        opening = self._markers.opening
        begun = self._held.lstrip()
        if begun.startswith(opening):
            self._state, self._held = _State.THINKING_BEGINS, begun[len(opening) :]
        elif not opening.startswith(begun):
            self._state = _State.ANSWER

    def _think(self) -> str:
        if self._state is _State.THINKING_BEGINS:
            self._held = self._held.lstrip()
            if not self._held:
                return ""
            self._state = _State.THINKING
        closing = self._markers.closing
        end = self._held.find(closing)
        if end >= 0:
            thinking, self._held = self._held[:end].rstrip(), self._held[end + len(closing) :]
            self._state = _State.ANSWER_BEGINS
            return thinking
        # The longest end of the text that may still become the marker, and the white space before it.
        length = next((n for n in range(len(closing) - 1, 0, -1) if self._held.endswith(closing[:n])), 0)
        certain = self._held[: len(self._held) - length].rstrip()
        self._held = self._held[len(certain) :]
        return certain

    def _answer(self) -> str:
        opening, closing = self._markers.answer
        if self._state is _State.ANSWER_BEGINS:
            self._held = self._held.lstrip()
            if opening and self._held.startswith(opening):
                self._held = self._held[len(opening) :].lstrip()
                self._state = _State.WRAPPED
            elif self._held and not opening.startswith(self._held):
                self._state = _State.ANSWER
        if self._state is _State.WRAPPED:
            # White space and the closing marker are the end of the answer, unless more comes.
            body = self._held.rstrip()
            length = next((n for n in range(len(closing), 0, -1) if body.endswith(closing[:n])), 0)
            answer = body[: len(body) - length] if length else body
            self._held = self._held[len(answer) :]
            return answer
        if self._state is not _State.ANSWER:
            return ""
        answer, self._held = self._held, ""
        return answer
