"""The report before it is a page: chapters of paragraphs, tables and plots, which HTML and Markdown are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["", "good", "bad", "warn", "missing"]
# Said in words and drawn as a sign, as a colour alone is lost in print and on some eyes.
SIGNS: dict[Tone, str] = {"good": "\u25b2", "bad": "\u2717", "warn": "!", "missing": "\u2205"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a table; `detail` stands smaller below, and with `is_code` it is set in the type of commands."""

    text: str
    tone: Tone = ""
    detail: str = ""
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """The first column names the rows. The last cell of a row that is shorter than `head` takes the rest of it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg` is complete and escaped, and carries its own description."""

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Plots:
    """Beside each other where there is room."""

    plots: Sequence[Plot]


@dataclass(frozen=True, slots=True)
class Heading:
    """Within a chapter."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """With a tone, it is set apart."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list without order."""

    items: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Code:
    """Commands, one a line, under a name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Details:
    """What is folded away until the reader wants it; print shows the summary."""

    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Card:
    """What belongs to one engine."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Cards:
    """Beside each other where there is room."""

    cards: Sequence[Card]


Block = Cards | Table | Plots | Heading | Paragraph | Bullets | Code | Details


@dataclass(frozen=True, slots=True)
class Chapter:
    """`anchor` is for links to it: letters and hyphens."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """`facts` are names and values that stand under the title; the banner is "" for a comparison that was measured."""

    title: str
    banner: str
    facts: Sequence[tuple[str, str]]
    chapters: Sequence[Chapter] = field(default_factory=list)


def cells(*texts: str) -> list[Cell]:
    """A row of plain text."""
    return [Cell(text) for text in texts]
