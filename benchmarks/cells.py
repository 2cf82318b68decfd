"""What the engines are timed on: cells of so many streams with so many tokens. Standard library only: other engines'
environments import it too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

LONG_PROMPT = 256  # a decode cell with prompts of at least this is named after them


class Regime(StrEnum):
    """What bounds a cell: engines choose other code, and other flags win."""

    PREFILL = "prefill"
    SINGLE = "single"
    BATCHED = "batched"


@dataclass(frozen=True)
class Cell:
    """Streams that start together, each with a random prompt of its own.

    Args:
        streams: how many.
        prompt: tokens of each prompt.
        answer: tokens of each answer that are timed; 0 times the prompts instead.
    """

    streams: int
    prompt: int
    answer: int

    @property
    def regime(self) -> Regime:
        if self.answer == 0:
            return Regime.PREFILL
        return Regime.SINGLE if self.streams == 1 else Regime.BATCHED

    @property
    def name(self) -> str:
        if self.regime is Regime.PREFILL:
            return f"prefill {self.prompt}"
        return f"decode {self.streams}" + (f" at {self.prompt}" if self.prompt >= LONG_PROMPT else "")

    @property
    def tokens(self) -> int:
        """Tokens that are computed, warm-up not counted."""
        return self.streams * (self.prompt + self.answer)


def dump(cells: Iterable[Cell]) -> str:
    """As JSON, for the command line of a turn."""
    return json.dumps([asdict(cell) for cell in cells])


def load(text: str) -> list[Cell]:
    """The inverse of dump()."""
    return [Cell(**fields) for fields in json.loads(text)]


def short_cells(batches: Sequence[int], *, prefill: int, prompt: int, answer: int) -> list[Cell]:
    """Prefill of one prompt, one stream from one token, then every batch at short contexts."""
    return [Cell(1, prefill, 0), Cell(1, 1, 2 * answer), *(Cell(batch, prompt, answer) for batch in batches)]
