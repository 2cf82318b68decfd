"""What an answer has gained since somebody last asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.tool_call import ToolCallDelta


@dataclass(slots=True)
class _CallGain:
    index: int
    name: str
    arguments: list[str] = field(default_factory=list)
    is_whole: bool = False
    broken: str = ""

    def delta(self) -> ToolCallDelta:
        return ToolCallDelta(self.index, self.name, "".join(self.arguments), self.is_whole, self.broken)


class Gains:
    """Content and calls, in order, until they are taken."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._calls: list[_CallGain] = []
        self._index = -1  # of the last call that was told
        self._is_under_way = False

    def taken(self) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """(content, calls) since the last time."""
        content, calls = "".join(self._content), tuple(call.delta() for call in self._calls)
        self._content, self._calls = [], []
        return content, calls

    def show(self, text: str) -> None:
        """Content. Right after a broken call it goes on with that call's text, or it would come before it."""
        if self._calls and self._calls[-1].broken:
            self._calls[-1].broken += text
        elif text:
            self._content.append(text)

    def announce(self, name: str) -> None:
        self._index += 1
        self._is_under_way = True
        self._calls.append(_CallGain(self._index, name))

    def gain_arguments(self, text: str) -> None:
        if text:
            self._last().arguments.append(text)

    def complete(self) -> None:
        self._last().is_whole = True
        self._is_under_way = False

    def break_off(self, raw: str, *, is_cut: bool) -> None:
        """The call under way is none, and so is what has not been told as one: `raw` is content."""
        if not self._is_under_way:
            self.show(raw)
        elif not is_cut:
            self._last().broken = raw
        self._is_under_way = False

    def _last(self) -> _CallGain:
        if not self._calls or self._calls[-1].index != self._index:
            self._calls.append(_CallGain(self._index, ""))
        return self._calls[-1]
