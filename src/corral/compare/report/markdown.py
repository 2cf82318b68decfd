"""The report as Markdown, for docs and pull requests: the page's text and tables; the plots are the page's alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from corral.compare.report.chapters.whole import document
from corral.compare.report.document import SIGNS, Block, Bullets, Cards, Cell, Code, Details, Heading, Paragraph, Table
from corral.compare.results import Comparison

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~!])")


def markdown_page(comparison: Comparison, *, is_short: bool = False) -> str:
    """Texts are escaped: none becomes markup, a link or a picture. Short, it lacks what the page has folded away."""
    page = document(comparison)
    lines = [f"# {escaped(page.title)}", ""]
    if page.banner:
        lines += [f"> **{escaped(page.banner)}**", ""]
    lines += [f"- {escaped(name)}: {escaped(value or 'not told')}" for name, value in page.facts]
    for chapter in page.chapters:
        lines += ["", f"## {escaped(chapter.title)}", ""]
        blocks = [block for block in chapter.blocks if not (is_short and isinstance(block, Details))]
        lines += _drawn(blocks)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def escaped(text: str) -> str:
    """On one line, and nothing in it that Markdown or HTML would read."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?i)\b(https?|ftp)://", r"\1&#58;//", _SPECIAL.sub(r"\\\1", flat)).replace("www.", "www&#46;")


def _drawn(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Table():
                yield from _table(block)
            case Cards():
                for card in block.cards:
                    yield from (f"#### {escaped(card.title)}", "")
                    yield from _drawn(card.blocks)
            case Heading():
                yield from (f"### {escaped(block.text)}", "")
            case Paragraph():
                text = _signed(Cell(block.text, block.tone))
                yield from (f"**{text}**" if block.tone else text, "")
            case Bullets():
                yield from (*(f"- {_signed(item)}" for item in block.items), "")
            case Code():
                yield from (f"{escaped(block.name)}:", "", *(f"    {line}" for line in block.text.splitlines()), "")
            case Details():
                yield from (f"### {escaped(block.summary)}", "")
                yield from _drawn(block.blocks)


def _table(table: Table) -> Iterator[str]:
    yield from (f"**{escaped(table.caption)}.** {escaped(table.note)}".rstrip(), "")
    yield "| " + " | ".join(escaped(text) or " " for text in table.head) + " |"
    yield "|" + "---|" * len(table.head)
    for row in table.rows:
        padded = [*(_signed(cell) for cell in row), *[""] * (len(table.head) - len(row))]
        yield "| " + " | ".join(text or " " for text in padded) + " |"
    yield ""


def _signed(cell: Cell) -> str:
    text = escaped(cell.text)
    if cell.is_code and text:
        text = f"<code>{text}</code>"
    if cell.detail:
        text += f" ({escaped(cell.detail)})"
    return f"{SIGNS[cell.tone].replace('!', '&#33;')} {text}" if cell.tone else text
