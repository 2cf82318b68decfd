"""Thinking before a grammar, and thinking with a budget."""

from __future__ import annotations

import pytest

from corral.grammar import Grammar, GrammarKind
from corral.text.grammar.thinking import MAX_SPACES, Closing, ThinkingConstraint
from corral.text.reasoning import Markers
from tests.text.grammar_walk import BYTE_LEVEL, allowed_ids, compiler_of, walk

COMPILER = compiler_of(BYTE_LEVEL)
TEXT_MARKERS = Markers("<think>", "</think>")  # the closing one is a token that is shown, the other plain text
CONTROL_MARKERS = Markers("<|im_start|>", "<|im_end|>")
ANSWER = Grammar(GrammarKind.CHOICE, '["yes", "no"]')
BOTH = pytest.mark.parametrize("markers", [TEXT_MARKERS, CONTROL_MARKERS], ids=["text", "control"])


def constraint(
    markers: Markers = TEXT_MARKERS, *, is_open: bool = True, budget: int | None = None, has_grammar: bool = True
) -> ThinkingConstraint:
    closing = Closing(markers, BYTE_LEVEL, COMPILER.vocabulary if has_grammar else None)
    return ThinkingConstraint(closing, COMPILER.compile(ANSWER) if has_grammar else None, budget, is_open=is_open)


def ids_of(text: str) -> list[int]:
    return BYTE_LEVEL.encode(text, add_special=False, parse_special=True)


def write(answer: ThinkingConstraint, ids: list[int]) -> None:
    for token_id in ids:
        may = allowed_ids(answer, BYTE_LEVEL)
        assert may is None or token_id in may, BYTE_LEVEL.token_bytes(token_id)
        answer.accept(token_id)


def rest_of(answer: ThinkingConstraint, seed: int = 0) -> str:
    ids, is_whole = walk(answer, BYTE_LEVEL, seed, 40)
    assert is_whole
    return BYTE_LEVEL.decode(ids)


@BOTH
def test_the_grammar_waits_for_the_end_of_the_thinking(markers: Markers) -> None:
    answer = constraint(markers)
    write(answer, ids_of("anything at all: 09 ") + ids_of(markers.closing))
    assert rest_of(answer).strip() in ("yes", "no")


@BOTH
def test_a_model_may_open_its_thinking_or_answer_at_once(markers: Markers) -> None:
    answer = constraint(markers, is_open=False)
    thoughtful = answer.copy()
    write(thoughtful, ids_of(markers.opening) + ids_of("so, well") + ids_of(markers.closing))
    assert rest_of(thoughtful).strip() in ("yes", "no")
    write(answer, ids_of("y"))
    assert rest_of(answer) == "es"


def test_a_marker_that_is_begun_is_gone_on_with() -> None:
    answer = constraint(is_open=False)
    first, second, *_ = ids_of("<think>")
    write(answer, [first])
    assert allowed_ids(answer, BYTE_LEVEL) == [second]


def test_what_begins_as_the_marker_may_be_the_answer() -> None:
    closing = Closing(TEXT_MARKERS, BYTE_LEVEL, COMPILER.vocabulary)
    grammar = COMPILER.compile(Grammar(GrammarKind.REGEX, "<[a-z]+>!"))
    answer = ThinkingConstraint(closing, grammar, None, is_open=False)
    write(answer, [token_id for character in "<tab>!" for token_id in ids_of(character)])
    assert set(allowed_ids(answer, BYTE_LEVEL) or ()) == BYTE_LEVEL.eog_ids


def test_an_answer_cannot_end_within_the_thinking() -> None:
    answer = constraint()
    write(answer, ids_of("hm"))
    assert not BYTE_LEVEL.eog_ids & set(allowed_ids(answer, BYTE_LEVEL) or ())
    assert allowed_ids(constraint(has_grammar=False), BYTE_LEVEL) is None


def test_no_token_ends_the_thinking_and_begins_the_answer() -> None:
    """What it would bring of the answer has not been through the grammar."""
    for begun in ("</think", "</thin", "a</think", "</think</think"):
        answer = constraint()
        for character in begun:
            write(answer, BYTE_LEVEL.encode_within(character))
        for token_id in allowed_ids(answer, BYTE_LEVEL) or ():
            _, marker, beyond = (begun.encode() + BYTE_LEVEL.token_bytes(token_id)).partition(b"</think>")
            assert not (marker and beyond.strip()), BYTE_LEVEL.token_bytes(token_id)


def test_white_space_may_follow_the_marker_but_not_for_ever() -> None:
    answer = constraint()
    write(answer, ids_of("</think>"))
    [line] = ids_of("\n")
    write(answer, [line] * MAX_SPACES)
    assert line not in (allowed_ids(answer, BYTE_LEVEL) or ())
    assert rest_of(answer) in ("yes", "no")


@BOTH
@pytest.mark.parametrize("has_grammar", [True, False])
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_budget_ends_the_thinking(markers: Markers, has_grammar: bool, budget: int) -> None:
    answer = constraint(markers, budget=budget, has_grammar=has_grammar)
    [thought] = ids_of("s")
    write(answer, [thought] * budget)
    for token_id in ids_of(markers.closing):
        assert allowed_ids(answer, BYTE_LEVEL) == [token_id]
        answer.accept(token_id)
    if has_grammar:
        assert rest_of(answer).strip() in ("yes", "no")
    else:
        assert allowed_ids(answer, BYTE_LEVEL) is None


@pytest.mark.parametrize("lead", ["", "\n"])
def test_a_budget_counts_from_the_opening_marker(lead: str) -> None:
    answer = constraint(CONTROL_MARKERS, is_open=False, budget=2, has_grammar=False)
    write(answer, ids_of(lead) + ids_of("<|im_start|>") + ids_of("s") + ids_of("s"))
    assert allowed_ids(answer, BYTE_LEVEL) == ids_of("<|im_end|>")


def test_a_budget_is_none_of_an_answer_without_thinking() -> None:
    answer = constraint(is_open=False, budget=0, has_grammar=False)
    write(answer, ids_of("no thoughts, <think> or other"))
    assert allowed_ids(answer, BYTE_LEVEL) is None


def test_copies_think_for_themselves() -> None:
    answer = constraint(budget=2)
    twin = answer.copy()
    write(answer, ids_of("s") + ids_of("s") + ids_of("</think>"))
    assert len(allowed_ids(twin, BYTE_LEVEL) or ()) > 1000
    write(twin, ids_of("s") + ids_of("s") + ids_of("</think>"))
    assert rest_of(twin).strip() in ("yes", "no")
