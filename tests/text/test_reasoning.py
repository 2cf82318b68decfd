from __future__ import annotations

import itertools

import pytest

from corral.text.reasoning import Markers, ReasoningSplitter, markers_of, opens_thinking
from corral.text.tokenizer import Tokenizer
from tests.support.tiny_vocab import bpe_metadata

THINK = Markers("<think>", "</think>")


def split(pieces: list[str], *, is_open: bool = False) -> tuple[str, str]:
    splitter = ReasoningSplitter(THINK, is_open=is_open)
    gains = [*(splitter.push(piece) for piece in pieces), splitter.finish()]
    return "".join(gain[0] for gain in gains), "".join(gain[1] for gain in gains)


CASES = [
    ("<think>\nhm, a < b\n</think>\n\nYes.", False, ("hm, a < b", "Yes.")),
    ("hm\n</think>\nYes </think> x", True, ("hm", "Yes </think> x")),
    ("No thinking <think>here</think>", False, ("", "No thinking <think>here</think>")),
    ("<think></think>Yes", False, ("", "Yes")),
    ("<think>cut off </thi", False, ("cut off </thi", "")),
    ("<thi", False, ("", "<thi")),
    ("  \n <think>a</think>b", False, ("a", "b")),
    (" leading space", False, ("", " leading space")),
    ("<think>a<</think></think>", False, ("a<", "</think>")),
    ("", False, ("", "")),
]


@pytest.mark.parametrize(("text", "is_open", "expected"), CASES)
def test_however_the_text_is_cut_into_pieces(text: str, is_open: bool, expected: tuple[str, str]) -> None:
    assert split([text], is_open=is_open) == expected
    assert split(list(text), is_open=is_open) == expected
    for first, second in itertools.combinations(range(len(text) + 1), 2):
        assert split([text[:first], text[first:second], text[second:]], is_open=is_open) == expected


def test_text_is_given_out_as_soon_as_it_is_certain() -> None:
    splitter = ReasoningSplitter(THINK, is_open=False)
    assert splitter.push("<think>one ") == ("one", "")
    assert splitter.push("two") == (" two", "")
    assert splitter.push("</think>A") == ("", "A")
    assert splitter.push(" b") == ("", " b")


def tokenizer(*control: str) -> Tokenizer:
    metadata = bpe_metadata()
    tokens, kinds = list(metadata["tokenizer.ggml.tokens"]), list(metadata["tokenizer.ggml.token_type"])
    metadata |= {
        "tokenizer.ggml.tokens": [*tokens, *control],
        "tokenizer.ggml.token_type": [*kinds, *([3] * len(control))],
    }
    return Tokenizer.from_metadata(metadata)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ '<think>' }}", ("<think>", "</think>")),
        ("{% set x = content.split('</think>') %}", ("<think>", "</think>")),
        ("{% if enable_thinking %}", ("<think>", "</think>")),
        ("[THINK]{{ x }}[/THINK]", ("[THINK]", "[/THINK]")),
        ("{{ range .Messages }}<mull>{{ .Thinking }}</mull>{{ end }}", ("<mull>", "</mull>")),
        ("{{ .Prompt }}", None),
    ],
)
def test_markers_are_found_in_the_template(source: str, expected: tuple[str, str] | None) -> None:
    found = markers_of(source, tokenizer())
    assert (None if found is None else (found.opening, found.closing)) == expected


def test_markers_that_are_control_tokens_have_ids() -> None:
    found = markers_of("[THINK]", tokenizer("[THINK]", "[/THINK]"))
    assert found is not None
    assert len(found.ids) == 2


def test_a_prompt_that_opens_the_thinking() -> None:
    assert opens_thinking("<assistant><think>\n", THINK)
    assert not opens_thinking("<assistant><think>\n\n</think>\n\n", THINK)
