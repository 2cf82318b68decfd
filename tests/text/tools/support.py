"""Answers with calls, as encoders put them together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from corral.text.tools.offered import OfferedTools
from corral.text.tools.parser import ToolCallParser
from corral.text.tools.style import ToolStyle
from corral.tool_call import ToolChoice

Calls = list[tuple[str, dict[str, Any]]]


def tool(name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


TEXT = {"type": "string"}
TOOLS = [
    tool("get_weather", ("city",), city=TEXT, days={"type": "integer"}, is_metric={"type": "boolean"}),
    tool("search", ("query",), query=TEXT, filters={"type": "object"}, tags={"type": "array", "items": TEXT}),
    tool("now"),
]


class Answer:
    """What a whole-answer encoder makes of the deltas."""

    def __init__(self) -> None:
        self.content = ""
        self.calls: dict[int, list[Any]] = {}  # name, arguments, whether it is whole

    def add(self, text: str, deltas: Iterable[Any]) -> None:
        self.content += text
        for delta in deltas:
            assert delta.index in self.calls or delta.name in {each["function"]["name"] for each in TOOLS}
            call = self.calls.setdefault(delta.index, ["", "", False])
            assert not call[2], "nothing comes of a call that is whole"
            call[0] += delta.name
            call[1] += delta.arguments
            call[2] |= delta.is_whole
            if delta.broken:
                self.content += delta.broken
                del self.calls[delta.index]

    @property
    def outcome(self) -> tuple[str, list[tuple[str, str, bool]]]:
        return self.content, [(name, arguments, whole) for name, arguments, whole in self.calls.values()]

    @property
    def whole_calls(self) -> Calls:
        return [(name, json.loads(arguments)) for name, arguments, whole in self.calls.values() if whole]


def parse(style: ToolStyle, pieces: Iterable[str], *, is_cut: bool = False, choice: ToolChoice | None = None) -> Answer:
    parser = ToolCallParser(style, OfferedTools(TOOLS, choice or ToolChoice()))
    answer = Answer()
    for piece in pieces:
        parser.push(piece)
        answer.add(*parser.taken())
    parser.finish(is_cut=is_cut)
    answer.add(*parser.taken())
    return answer


def splits(text: str, most_for_three: int = 60) -> Iterator[list[str]]:
    """Every way in two pieces, all characters alone, and of short texts every way in three."""
    yield list(text)
    for first in range(len(text)):
        yield [text[:first], text[first:]]
        if len(text) <= most_for_three:
            yield from ([text[:first], text[first:second], text[second:]] for second in range(first, len(text)))
