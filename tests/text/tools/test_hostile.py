"""Whatever a model writes: nothing is lost, nothing runs, and time grows with the text's length."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.text.tools.style import ToolStyle
from tests.text.tools.support import parse
from tests.text.tools.transcripts import TRANSCRIPTS

STYLES: dict[str, ToolStyle] = {transcript[0].name: transcript[0] for transcript in TRANSCRIPTS.values()}
FRAGMENTS = sorted(
    {piece for style in STYLES.values() for piece in (*style.openings, *style.markers)}
    | {
        '{"name": "now", "arguments": {}}',
        '{"name": "',
        '", "arguments": {',
        "now",
        "call:now{",
        "}",
        "]",
        "[",
        ";",
        ",",
    }
    | {
        " ",
        "\n",
        "x",
        '"',
        "\\",
        "get_weather(city='",
        "<function=now>",
        "<parameter=a>",
        "</parameter>",
        "1",
        ":",
        "```",
    }
    | {"function", "to=functions.now", "json", "\ud7ff", "é"}
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=14).map("".join)


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=3), is_cut=st.booleans())
def test_any_text_gives_the_same_however_it_comes_and_loses_nothing(
    name: str, text: str, cuts: list[int], is_cut: bool
) -> None:
    style = STYLES[name]
    whole = parse(style, [text], is_cut=is_cut)
    places = sorted({min(cut, len(text)) for cut in cuts})
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert parse(style, pieces, is_cut=is_cut).outcome == whole.outcome
    assert parse(style, list(text), is_cut=is_cut).outcome == whole.outcome
    if not whole.calls:
        assert whole.content == text
    kept = Counter(whole.content.replace(" ", ""))
    assert kept <= Counter(text), "content is the text's own"


def count_lines(function: Callable[[], object]) -> int:
    """Lines of Python that run: a measure of time that no busy machine changes."""
    count = 0

    def trace(frame: object, event: str, arg: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        function()
    finally:
        sys.settrace(before)
    return count


REPEATED = {
    "openings": lambda style, n: (style.openings or ("{",))[0] * n,
    "half openings": lambda style, n: (style.openings or ("{{",))[0][:-1] * n,
    "white space": lambda style, n: "\n" * n * 10,
    "white space in a call": lambda style, n: (style.openings or ("{",))[0] + " " * n * 10,
    "brackets": lambda style, n: (style.openings or ("",))[0] + '{"name": "now", "arguments": ' + '{"a":[' * n,
    "a long name": lambda style, n: (style.openings or ("",))[0] + "call:f" + "n" * n * 10,
    "pythonic": lambda style, n: "```tool_code\nget_weather(" + "a=1, " * n,  # vLLM's pattern took quadratic time here
    "quotes": lambda style, n: (style.openings or ("",))[0] + '"' * n * 5,
}


@pytest.mark.parametrize("kind", REPEATED)
@pytest.mark.parametrize("name", STYLES)
def test_time_grows_with_the_length(name: str, kind: str) -> None:
    style = STYLES[name]
    short, long = (REPEATED[kind](style, n) for n in (40, 160))
    for pieces in (lambda text: [text], list):
        few = count_lines(lambda p=pieces: parse(style, p(short)))  # type: ignore[misc]
        many = count_lines(lambda p=pieces: parse(style, p(long)))  # type: ignore[misc]
        assert many < 6 * few + 2000


def test_what_a_model_writes_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("the model's text was run")

    for name in ("eval", "exec", "compile", "__import__"):
        monkeypatch.setattr(f"builtins.{name}", refuse)
    style = STYLES["gemma"]
    text = "```tool_code\nget_weather(city=__import__('os').getcwd())\n```"
    answer = parse(style, [text])
    assert answer.outcome == (text, [])
