"""Calls as JSON between markers: Hermes, Qwen 2.5 and 3, Granite, Command R, and what a Go template says of others."""

from __future__ import annotations

from corral.text.tools.grammar import json_call_rules, lark_text, repeated
from corral.text.tools.json_calls import json_calls
from corral.text.tools.offered import OfferedTools
from corral.text.tools.reader import Reader, Reading
from corral.text.tools.style import Terminal, ToolStyle


class MarkedJSON(ToolStyle):
    """<tool_call>{"name": "f", "arguments": {...}}</tool_call>, or a list of such objects, or several in a row.

    Args:
        name: of the style.
        opening, closing: the markers; some styles have no closing one.
        is_list: what the model was trained to write is a list.
        keys: of the name and of the arguments.
    """

    def __init__(
        self,
        name: str,
        opening: str,
        closing: str = "",
        *,
        is_list: bool = False,
        keys: tuple[str, str] = ("name", "arguments"),
    ) -> None:
        self.name = name
        self.openings = (opening,)
        self.markers = (opening, closing) if closing else (opening,)
        self._closing = closing
        self._is_list = is_list
        self._keys = keys

    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """As ToolStyle.calls. The closing marker may be missing, as in an answer whose last token it was."""
        yield from reader.skip_space()
        yield from json_calls(reader)
        while True:
            yield from reader.skip_space()
            if self._closing and (yield from reader.one_of(self._closing)):
                return
            if (yield from reader.peek()) not in ("{", "["):
                return
            yield from json_calls(reader)

    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """As ToolStyle.call_grammar."""
        rules = json_call_rules(tools, self._keys)
        opening = terminal(self.openings[0])
        closing = terminal(self._closing) if self._closing else ""
        if self._is_list:
            calls = repeated("call", lark_text(", "), is_parallel=tools.is_parallel)
            return f"start: {opening} {lark_text('[')} {calls} {lark_text(']')} {closing}\n{rules}"
        line = lark_text("\n")
        marked = f"marked: {opening} {line} call {line} {closing}\n"
        return f"start: {repeated('marked', line, is_parallel=tools.is_parallel)}\n{marked}{rules}"
