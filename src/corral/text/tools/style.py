"""What the styles have in common: how a family of models writes calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from corral.text.tools.offered import OfferedTools
from corral.text.tools.reader import Reader, Reading

Terminal = Callable[[str], str]  # a marker's text -> what stands for it in a grammar: a control token, or a string


class ToolStyle(ABC):
    """How calls are written. Holds no state: one serves all answers.

    Attributes:
        name: as other servers call it, where they have one.
        openings: texts that begin calls, wherever they stand; none is the beginning of another.
        starts: characters that may begin a call without a marker, at the beginning of an answer only.
        markers: what may be a control token, and must be seen all the same.
    """

    name: str
    openings: tuple[str, ...] = ()
    starts: str = ""
    markers: tuple[str, ...] = ()

    @abstractmethod
    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """Reads the calls after `opening`, which is taken already; it is empty before one of `starts`.

        Raises:
            NotACallError: here is no call, or no other.
        """

    @abstractmethod
    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """llguidance's Lark for an answer that is one call of `tools`, or several where they may be parallel."""
