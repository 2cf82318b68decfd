"""Mistral's calls: a list of JSON objects after one marker, or in newer models a marker before each call."""

from __future__ import annotations

from corral.text.tools.grammar import lark_json, lark_text, repeated
from corral.text.tools.json_calls import json_calls
from corral.text.tools.offered import OfferedTools
from corral.text.tools.reader import Reader, Reading
from corral.text.tools.style import Terminal, ToolStyle

_CALLS, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


class Mistral(ToolStyle):
    """[TOOL_CALLS] [{"name": "f", "arguments": {...}}], or [TOOL_CALLS]f[ARGS]{...}, or without that second marker.

    Args:
        is_named: the model writes the newer form; both are read.
    """

    name = "mistral"
    openings = (_CALLS,)
    markers = (_CALLS, _ID, _ARGUMENTS)

    def __init__(self, *, is_named: bool) -> None:
        self._is_named = is_named

    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """As ToolStyle.calls."""
        yield from reader.skip_space()
        if (yield from reader.peek()) in ("[", "{"):
            yield from json_calls(reader)
            return
        name = yield from reader.bare_word()
        yield from reader.skip_space()
        if (yield from reader.one_of(_ID)):
            yield from reader.bare_word()
        yield from reader.one_of(_ARGUMENTS)
        yield from reader.skip_space()
        reader.begin(name)
        yield from reader.json(is_told=True)
        reader.whole()

    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """As ToolStyle.call_grammar."""
        rules = [f"call: {' | '.join(f'call_{number}' for number in range(len(tools.names)))}"]
        for number, name in enumerate(tools.names):
            if self._is_named:
                rules.append(
                    f"call_{number}: {terminal(_CALLS)} {lark_text(name)} {terminal(_ARGUMENTS)} args_{number}"
                )
            else:
                head = f'{{"name": {lark_text(name)}, "arguments": '
                rules.append(f"call_{number}: {lark_text(head)} args_{number} {lark_text('}')}")
            rules.append(f"args_{number}: {lark_json(tools.schema_of(name))}")
        if self._is_named:
            return "\n".join((f"start: {repeated('call', '', is_parallel=tools.is_parallel)}", *rules, ""))
        calls = repeated("call", lark_text(", "), is_parallel=tools.is_parallel)
        return "\n".join((f"start: {terminal(_CALLS)} {lark_text('[')} {calls} {lark_text(']')}", *rules, ""))
