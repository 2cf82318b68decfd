from __future__ import annotations

import pytest

from corral.text.tools.detect import HERMES
from corral.text.tools.offered import OfferedTools
from corral.text.tools.parser import ToolCallParser
from corral.tool_call import ToolChoice
from tests.text.tools.support import TOOLS, parse, splits
from tests.text.tools.transcripts import CUT_OFF, NOW, PARIS, TRANSCRIPTS


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_transcript_gives_its_calls_however_it_is_cut_into_pieces(name: str) -> None:
    style, text, content, calls = TRANSCRIPTS[name]
    whole = parse(style, [text])
    assert (whole.content, whole.whole_calls) == (content, calls)
    assert all(is_whole for _, _, is_whole in whole.calls.values())
    for pieces in splits(text):
        assert parse(style, pieces).outcome == whole.outcome, pieces


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_call_that_is_cut_off_stays_as_it_is(name: str) -> None:
    style, text, content, called, arguments = CUT_OFF[name]
    expected = (content, [(called, arguments, False)] if called else [])
    for pieces in splits(text):
        assert parse(style, pieces, is_cut=True).outcome == expected, pieces


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_call_that_the_model_left_unfinished_is_content(name: str) -> None:
    style, text, _, _, _ = CUT_OFF[name]
    for pieces in splits(text):
        assert parse(style, pieces).outcome == (text, []), pieces


def test_names_come_whole_and_arguments_as_they_come() -> None:
    parser = ToolCallParser(HERMES, OfferedTools(TOOLS, ToolChoice()))
    told = []
    for piece in ("Hi", ' <tool_call>{"name": "get', '_weather", "arguments": {"ci', 'ty": "Pa', 'ris"}}'):
        parser.push(piece)
        text, calls = parser.taken()
        told.append((text, [(call.name, call.arguments, call.is_whole) for call in calls]))
    assert told == [
        ("Hi", []),
        ("", []),
        ("", [("get_weather", '{"ci', False)]),
        ("", [("", 'ty": "Pa', False)]),
        ("", [("", 'ris"}', True)]),
    ]
    assert parser.has_called


def test_an_answer_that_may_have_one_call_ends_with_it() -> None:
    _, text, _, calls = TRANSCRIPTS["hermes: parallel"]
    for pieces in splits(text):
        answer = parse(HERMES, pieces, choice=ToolChoice(is_parallel=False))
        assert (answer.content, answer.whole_calls) == ("", calls[:1]), pieces


def test_only_chosen_tools_may_be_called() -> None:
    answer = parse(HERMES, [TRANSCRIPTS["hermes: one"][1]], choice=ToolChoice(names=("now",)))
    assert (answer.content, answer.whole_calls) == (TRANSCRIPTS["hermes: one"][1], [])
    named = '<tool_call>{"name": "now"}</tool_call>'
    assert parse(HERMES, [named], choice=ToolChoice(names=("now",))).whole_calls == [NOW]


def test_what_follows_a_broken_call_stays_behind_it() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": Paris}} and <tool_call>{"name": "now"} end'
    for pieces in splits(text):
        answer = parse(HERMES, pieces)
        head = '<tool_call>{"name": "get_weather", "arguments": {"city": Paris}} and'
        assert (answer.content, answer.whole_calls) == (f"{head} end", [NOW]), pieces


def test_calls_after_thinking_and_text() -> None:
    assert parse(HERMES, ["\n\n", TRANSCRIPTS["hermes: one"][1], "\n"]).outcome[0] == ""
    assert parse(HERMES, ["a\n"]).outcome == ("a\n", [])
    assert parse(HERMES, [TRANSCRIPTS["hermes: one"][1]]).whole_calls == [PARIS]
