from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.text.harmony import HarmonySplitter

FRAGMENTS = ["<|channel|>", "<|message|>", "analysis", "final", "<|end|>", "<|start|>", "assistant", "x", " ", "to=f"]
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a":1}<|call|>'


def split(pieces: list[str], prompt: str = "<|start|>user<|message|>hi<|end|><|start|>assistant") -> tuple[str, str]:
    splitter = HarmonySplitter(prompt)
    gains = [*(splitter.push(piece) for piece in pieces), splitter.finish()]
    return "".join(gain[0] for gain in gains), "".join(gain[1] for gain in gains)


CASES = [
    (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "hm",
        "Yes.",
    ),
    ("<|channel|>final<|message|>Yes", "", "Yes"),
    ("<|channel|>analysis<|message|>cut o<", "cut o<", ""),
    (f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant{CALL}", "hm", f"<|start|>assistant{CALL}"),
    ("<|channel|>commentary<|message|>I call.<|end|>" + CALL, "", "I call." + CALL),
    ("<|channel|>analysis<|message|>a<|end|><|channel|>analysis<|message|>b<|end|>", "a\nb", ""),
    ("Plain text.", "", "Plain text."),
    ("<|channel|>" + "x" * 300 + "<|message|>y", "", "<|channel|>" + "x" * 300 + "<|message|>y"),
    ("<|channel|>fin", "", ""),
]


@pytest.mark.parametrize(("text", "thinking", "answer"), CASES)
def test_channels_are_taken_apart_however_they_come(text: str, thinking: str, answer: str) -> None:
    assert split([text]) == (thinking, answer)
    assert split(list(text)) == (thinking, answer)
    for place in range(len(text)):
        assert split([text[:place], text[place:]]) == (thinking, answer)


def test_the_prompt_may_end_within_a_message() -> None:
    assert split(["go on<|return|>"], "<|start|>assistant<|channel|>final<|message|>Begun, ") == ("", "go on")
    assert split(["hm<|end|>"], "<|start|>assistant<|channel|>analysis<|message|>") == ("hm", "")


@given(text=st.lists(st.sampled_from(FRAGMENTS)).map("".join))
@settings(max_examples=200, deadline=None)
def test_any_text_is_taken_apart_the_same_however_it_comes(text: str) -> None:
    assert split(list(text)) == split([text])
