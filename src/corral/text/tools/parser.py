"""Takes calls apart from the rest of an answer, while it comes."""

from __future__ import annotations

from corral.text.markers import Openings
from corral.text.tools.offered import OfferedTools
from corral.text.tools.reader import EnoughError, NotACallError, Reader, Reading
from corral.text.tools.style import ToolStyle
from corral.tool_call import ToolCallDelta


class ToolCallParser:
    """One answer. What it finds does not depend on the pieces that the text comes in.

    White space around calls is left out; everything else that is no call is content. Content that comes with the
    deltas of calls stands after those that were told of before, and before the others.

    Args:
        style: of the model.
        tools: what may be called.
    """

    def __init__(self, style: ToolStyle, tools: OfferedTools) -> None:
        self._style = style
        self._openings = Openings(style.openings)
        self._reader = Reader(tools)
        self._is_cut = False
        self.is_finished = False  # the answer may have one call, and has it
        self._program = self._run()
        next(self._program)

    @property
    def has_called(self) -> bool:
        """Whether a call is whole."""
        return self._reader.num_whole > 0

    def push(self, text: str) -> None:
        """The answer goes on."""
        if not self._reader.is_over:
            self._reader.add(text)
            self._resume()

    def finish(self, *, is_cut: bool = False) -> None:
        """The answer ends, and what was held back is certain.

        Args:
            is_cut: it did not end by itself, so a call that is not whole is no fault of the model's.
        """
        self._is_cut = is_cut
        self._reader.is_over = True
        self._resume()

    def taken(self) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """(content, calls) that are certain and have not been taken yet."""
        return self._reader.taken()

    def _resume(self) -> None:
        if not self.is_finished:
            next(self._program, None)

    def _run(self) -> Reading[None]:
        reader, style = self._reader, self._style
        try:
            if style.starts:
                character = yield from reader.space()
                if character and character in style.starts:
                    reader.mark()
                    yield from self._calls("")
            while opening := (yield from reader.content(self._openings)):
                yield from self._calls(opening)
        except EnoughError:
            self.is_finished = True

    def _calls(self, opening: str) -> Reading[None]:
        try:
            yield from self._style.calls(self._reader, opening)
        except NotACallError:
            self._reader.fail(is_cut=self._is_cut)
