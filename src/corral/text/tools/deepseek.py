"""DeepSeek's calls: R1 and V3 fence their arguments, V3.1 writes them bare."""

from __future__ import annotations

from corral.text.tools.grammar import lark_json, lark_text, repeated
from corral.text.tools.offered import OfferedTools
from corral.text.tools.reader import Reader, Reading
from corral.text.tools.style import Terminal, ToolStyle

_CALLS, _END_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _END_CALL, _SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"


class DeepSeek(ToolStyle):
    """The calls stand between their markers, each in its own.

    Args:
        is_fenced: the model writes the form of R1 and V3; both are read.
    """

    name = "deepseek"
    openings = (_CALLS, _CALL)
    markers = (_CALLS, _END_CALLS, _CALL, _END_CALL, _SEPARATOR)

    def __init__(self, *, is_fenced: bool) -> None:
        self._is_fenced = is_fenced

    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """As ToolStyle.calls."""
        if opening == _CALLS:
            yield from reader.skip_space()
            yield from reader.expect(_CALL)
        while True:
            yield from self._call(reader)
            yield from reader.skip_space()
            yield from reader.one_of(_END_CALL)
            yield from reader.skip_space()
            if not (yield from reader.one_of(_CALL)):
                yield from reader.one_of(_END_CALLS)
                return

    def _call(self, reader: Reader) -> Reading[None]:
        name, _ = yield from reader.name_until(_SEPARATOR)
        is_fenced = name.strip() == "function" and "function" not in reader.tools
        if is_fenced:
            name, _ = yield from reader.name_until("\n")
            yield from reader.skip_space()
            yield from reader.expect("```json", "```")
        yield from reader.skip_space()
        reader.begin(name.strip())
        yield from reader.json(is_told=True)
        reader.whole()
        if is_fenced:
            yield from reader.skip_space()
            yield from reader.one_of("```")

    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """As ToolStyle.call_grammar."""
        rules = [f"call: {' | '.join(f'call_{number}' for number in range(len(tools.names)))}"]
        begin, separator, end = terminal(_CALL), terminal(_SEPARATOR), terminal(_END_CALL)
        for number, name in enumerate(tools.names):
            if self._is_fenced:
                head = f"{begin} {lark_text('function')} {separator} {lark_text(f'{name}{chr(10)}```json{chr(10)}')}"
                tail = f"{lark_text(f'{chr(10)}```')} {end}"
            else:
                head, tail = f"{begin} {lark_text(name)} {separator}", end
            rules.append(f"call_{number}: {head} args_{number} {tail}")
            rules.append(f"args_{number}: {lark_json(tools.schema_of(name))}")
        between = lark_text("\n") if self._is_fenced else ""
        calls = repeated("call", between, is_parallel=tools.is_parallel)
        return "\n".join((f"start: {terminal(_CALLS)} {calls} {terminal(_END_CALLS)}", *rules, ""))
