"""Gemma's calls: FunctionGemma and Gemma 4 have markers of their own, Gemma 3 is told by the prompt how to write."""

from __future__ import annotations

from corral.text.tools.grammar import json_call_rules, lark_text, repeated
from corral.text.tools.json_calls import json_calls
from corral.text.tools.notation import Notation, members_as_json
from corral.text.tools.offered import OfferedTools
from corral.text.tools.python_calls import python_calls
from corral.text.tools.reader import Reader, Reading
from corral.text.tools.style import Terminal, ToolStyle
from corral.text.tools.value_grammar import ValueGrammar


class GemmaCall(ToolStyle):
    """<start_function_call>call:f{city:<escape>Paris<escape>,days:3}<end_function_call>

    Args:
        name: of the style.
        opening, closing: the markers.
        quote: what stands on both sides of a text.
    """

    def __init__(self, name: str, opening: str, closing: str, quote: str) -> None:
        self.name = name
        self.openings = (opening,)
        self.markers = (opening, closing, quote)
        self._closing = closing
        self._quote = quote
        self._notation = Notation((quote, '"'), has_escapes=False, separator=":", closing="}")

    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """As ToolStyle.calls."""
        yield from reader.skip_space()
        yield from reader.expect("call:")
        name, _ = yield from reader.name_until("{")
        reader.begin(name.strip())
        yield from members_as_json(reader, self._notation)
        reader.whole()
        yield from reader.skip_space()
        yield from reader.one_of(self._closing)

    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """As ToolStyle.call_grammar; of the values only the types are kept."""
        values = ValueGrammar(terminal(self._quote))
        rules = [f"call: {' | '.join(f'call_{number}' for number in range(len(tools.names)))}"]
        opening, closing = terminal(self.openings[0]), terminal(self._closing)
        for number, name in enumerate(tools.names):
            members = values.members(tools.schema_of(name))
            head, end = lark_text(f"call:{name}{{"), lark_text("}")
            rules.append(f"call_{number}: {opening} {head} {members} {end} {closing}")
        calls = repeated("call", "", is_parallel=tools.is_parallel)
        return "\n".join((f"start: {calls}", *rules, values.rules()))


class GemmaPrompted(ToolStyle):
    """Gemma 3 has no markers. Its guide asks for JSON, or for Python's calls in a list or in a fence."""

    name = "gemma"
    starts = "{["
    openings = ("```tool_code", "```json", "```tool_call", "```python")

    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """As ToolStyle.calls."""
        yield from reader.skip_space()
        if (yield from reader.peek()) == "{":
            yield from json_calls(reader, is_strict=True)
        elif (yield from reader.one_of("[")):
            yield from reader.skip_space()
            if (yield from reader.peek()) == "{":
                yield from json_calls(reader, is_strict=True, is_in_list=True)
            else:
                yield from python_calls(reader, closing="]")
        else:
            yield from python_calls(reader)
        yield from reader.skip_space()
        if opening:
            yield from reader.one_of("```")

    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """As ToolStyle.call_grammar."""
        rules = json_call_rules(tools, ("name", "parameters"))
        if not tools.is_parallel:
            return f"start: call\n{rules}"
        calls = repeated("call", lark_text(", "), is_parallel=True)
        return f"start: {lark_text('[')} {calls} {lark_text(']')}\n{rules}"
