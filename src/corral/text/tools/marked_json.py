"""Calls as JSON: between markers, as Hermes, Qwen 2.5 and 3, Granite, Command R and Phi write them, or without any."""

from __future__ import annotations

from corral.text.tools.grammar import json_call_rules, lark_text, repeated
from corral.text.tools.json_calls import json_calls
from corral.text.tools.offered import OfferedTools
from corral.text.tools.reader import NotACallError, Reader, Reading
from corral.text.tools.style import Terminal, ToolStyle

_FENCE = "```"
_FENCES = ("```json", "```tool_call", "```tool_use")


class MarkedJSON(ToolStyle):
    """<tool_call>{"name": "f", "arguments": {...}}</tool_call>, or a list of such objects, or several in a row.

    Models forget their markers: an answer that begins with such an object, or has it in a fence, calls too. Then the
    object must hold nothing else.

    Args:
        name: of the style.
        opening, closing: the markers; some styles have no closing one, and some none at all.
        others: further openings that models of the style take for it.
        is_list: what the model was trained to write is a list.
        keys: of the name and of the arguments.
        separator: of calls that share their markers.
        is_marked: what the model was trained to write has the markers.
    """

    starts = "{["

    def __init__(
        self,
        name: str,
        opening: str = "",
        closing: str = "",
        *,
        others: tuple[str, ...] = (),
        is_list: bool = False,
        keys: tuple[str, str] = ("name", "arguments"),
        separator: str = "",
        is_marked: bool = True,
    ) -> None:
        self.name = name
        self.openings = tuple(text for text in (opening, *others, *_FENCES) if text)
        self.markers = tuple(text for text in (opening, closing) if text)
        self._closings = (*([closing] if closing else []), *(text.replace("<", "</") for text in others), _FENCE)
        self._written = (opening, closing) if is_marked else ("", "")
        self._is_list = is_list
        self._keys = keys
        self._separator = separator

    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """As ToolStyle.calls. The closing marker may be missing, as in an answer whose last token it was."""
        is_strict = not opening or opening in _FENCES
        yield from reader.skip_space()
        yield from json_calls(reader, is_strict=is_strict)
        while True:
            yield from reader.skip_space()
            if (yield from reader.one_of(*self._closings)):
                return
            separator = "" if not self._separator else (yield from reader.one_of(self._separator))
            yield from reader.skip_space()
            if (yield from reader.peek()) not in ("{", "["):
                if separator:
                    raise NotACallError("a call is missing")
                return
            yield from json_calls(reader, is_strict=is_strict)

    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """As ToolStyle.call_grammar."""
        rules = json_call_rules(tools, self._keys)
        opening, closing = (terminal(marker) if marker else "" for marker in self._written)
        if self._is_list:
            calls = repeated("call", lark_text(", "), is_parallel=tools.is_parallel)
            return f"start: {opening} {lark_text('[')} {calls} {lark_text(']')} {closing}\n{rules}"
        if not closing:
            separator = lark_text(f"{self._separator} ") if self._separator else lark_text("\n")
            return f"start: {opening} {repeated('call', separator, is_parallel=tools.is_parallel)}\n{rules}"
        line = lark_text("\n")
        marked = f"marked: {opening} {line} call {line} {closing}\n"
        return f"start: {repeated('marked', line, is_parallel=tools.is_parallel)}\n{marked}{rules}"
