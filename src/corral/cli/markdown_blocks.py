"""One block of Markdown as lines for a terminal."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from rich.console import Console
from rich.markdown import Heading, Markdown

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderResult

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


class _LeftHeading(Heading):
    """Rich centres headings; in an answer that is read from the left they stay there."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Block(Markdown):
    elements = Markdown.elements | {"heading_open": _LeftHeading}

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)  # a link's target is shown: not every terminal has hyperlinks
        self.markup = text
        self.parsed = _parser().parse(text)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":  # a poem's lines are lines
                    child.type = "hardbreak"


@cache
def _parser() -> MarkdownIt:
    # Rich leaves out what reads as HTML: List<int> would lose its <int>.
    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


@cache
def _console() -> Console:
    return Console(force_terminal=True, legacy_windows=False)


def render(text: str, columns: int) -> list[str]:
    """The lines of `text`, with colours as the terminal has them, and without empty lines around them."""
    console = _console()
    with console.capture() as capture:
        console.print(_Block(text), width=columns)
    lines = [line.rstrip(" ") for line in capture.get().split("\n")]
    filled = [index for index, line in enumerate(lines) if _STYLE.sub("", line).strip()]
    return lines[filled[0] : filled[-1] + 1] if filled else []
