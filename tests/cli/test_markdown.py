"""What stands on a screen after Markdown was printed piece by piece, by a terminal of a few lines of code."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.cli.markdown import MarkdownPrinter

_SEQUENCE = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\[[0-9;]*m")


class Screen:
    """Lines as a terminal that never scrolls would have them; a row above the first one is a fault."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        position = 0
        while position < len(text):
            match = _SEQUENCE.match(text, position)
            if match:
                position = match.end()
                self._control(match[2], int(match[1] or 1) if match[2] else 0)
                continue
            self._put(text[position])
            position += 1

    def _control(self, kind: str | None, count: int) -> None:
        if kind == "A":
            self.row -= count
            assert self.row >= 0, "it went above the first row"
        elif kind == "J":
            del self.rows[self.row][self.column :]
            del self.rows[self.row + 1 :]
        elif kind == "K":
            del self.rows[self.row][self.column :]

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
            return
        if character != "\n":
            if self.column == self.columns:
                self._put("\n")
            row = self.rows[self.row]
            row.extend(" " * (self.column - len(row)))
            row[self.column : self.column + 1] = [character]
            self.column += 1
            return
        self.row += 1
        self.column = 0
        while len(self.rows) <= self.row:
            self.rows.append([])

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self.rows)


def shown(text: str, *, step: int = 1, columns: int = 40, rows: int = 50) -> str:
    out = io.StringIO()
    printer = MarkdownPrinter(out, lambda: (columns, rows))
    for start in range(0, len(text), step):
        printer.write(text[start : start + step])
    printer.end()
    screen = Screen(columns)
    screen.feed(out.getvalue())
    return screen.text


def test_paragraphs_are_wrapped_at_words_and_their_lines_kept() -> None:
    text = "A **bold** paragraph which is longer than the line.\nIts second line.\n\nAnother."
    assert shown(text) == ("A bold paragraph which is longer than\nthe line.\nIts second line.\n\nAnother.\n")


def test_lists_keep_their_numbers_and_depth() -> None:
    text = "Do:\n- one\n  - inner\n- two\n\n7. seven\n8. eight"
    assert shown(text) == "Do:\n • one\n   • inner\n • two\n\n 7 seven\n 8 eight\n"


def test_code_is_shown_as_it_is() -> None:
    code = "def f():\n    return `x` ** 2\n\n# no heading\n``\n- no item"
    assert shown(f"Look:\n```python\n{code}\n```\nDone.") == f"Look:\n{code}\nDone.\n"


def test_code_that_is_not_ended_is_shown() -> None:
    assert shown("```\nx = 1") == "x = 1\n"
    assert shown("```\nx = 1\n``") == "x = 1\n``\n"


def test_a_longer_fence_holds_a_shorter_one() -> None:
    assert shown("````\n```\nx\n```\n````\nend") == "```\nx\n```\nend\n"


def test_headings_and_quotes_and_tables() -> None:
    text = "# One\ntext\n## Two\n\n> said\n\n| a | b |\n|---|---|\n| 1 | 22 |\n\nend"
    lines = shown(text).split("\n")
    assert lines[:4] == ["One", "text", "Two", ""]
    assert lines[4] == "▌ said"
    assert [line.split() for line in lines if "22" in line or " a " in line] == [["a", "b"], ["1", "22"]]
    assert "|" not in shown(text)


def test_what_reads_as_html_stays() -> None:
    assert shown("A List<int> and <div>this</div>\n\n<b>x</b>") == "A List<int> and <div>this</div>\n\n<b>x</b>\n"


def test_links_show_where_they_lead() -> None:
    assert shown("See [this](http://x.y).") == "See this (http://x.y).\n"


def test_wide_characters_take_two_columns() -> None:
    assert shown("日本語のテキスト" * 6, columns=21).replace("\n", "") == "日本語のテキスト" * 6


def test_a_block_higher_than_the_screen_stays_as_it_came() -> None:
    text = "".join(f"line *{number}*\n" for number in range(20))
    assert shown(text, rows=8) == text


def test_a_terminal_that_was_resized_meanwhile_is_not_repainted() -> None:
    out, width = io.StringIO(), [40]
    printer = MarkdownPrinter(out, lambda: (width[0], 50))
    printer.write("some *text*")
    width[0] = 20
    printer.write("\n\nmore *text*\n")
    printer.end()
    assert out.getvalue().startswith("some *text*\n")
    assert "\x1b[A" not in out.getvalue()


def test_without_colour_code_has_none() -> None:
    out = io.StringIO()
    printer = MarkdownPrinter(out, lambda: (40, 50), has_colour=False)
    printer.write("```\nx\n```\n")
    printer.end()
    assert out.getvalue().count("x") == 1
    assert "\x1b[36m" not in out.getvalue()


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_the_size_of_the_pieces_makes_no_difference(step: int) -> None:
    text = "# T\n\npara `c`\n- a\n- b\n\n```\ncode\n```\n> q\n\n1. x\n\tdeep\n\nend **b**"
    assert shown(text, step=step) == shown(text, step=10_000)


LINES = st.sampled_from(
    [
        "",
        "word",
        "- item",
        "  - inner",
        "1. one",
        "# head",
        "```",
        "~~~",
        "> quote",
        "| a | b |",
        "|---|---|",
        "---",
        "    indented",
        "a *b* c",
        "``",
        "x" * 50,
        "<tag>",
        "\t",
        "* * *",
        "===",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, max_size=12), st.integers(1, 9))
def test_any_text_ends_well(lines: list[str], step: int) -> None:
    """It never paints above its first row, ends its last line, and shows every word."""
    text = "\n".join(lines)
    result = shown(text, step=step)
    assert result == "" or result.endswith("\n")
    assert result.count("word") == text.count("word")
    assert result.count("inner") == text.count("inner")
    assert result.replace("\n", "").count("x" * 30) >= text.count("x" * 50)
