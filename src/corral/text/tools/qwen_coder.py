"""Qwen 3 Coder's calls: parameters between tags, as bare text."""

from __future__ import annotations

import json

from corral.text.tools.grammar import lark_json, lark_text, repeated
from corral.text.tools.offered import OfferedTools, types_of, value_as_json
from corral.text.tools.reader import NotACallError, Reader, Reading
from corral.text.tools.style import Terminal, ToolStyle

_CALL, _END_CALL = "<tool_call>", "</tool_call>"
_FUNCTION, _END_FUNCTION = "<function=", "</function>"
_PARAMETER, _END_PARAMETER = "<parameter=", "</parameter>"


class QwenCoder(ToolStyle):
    """<tool_call>\\n<function=f>\\n<parameter=city>\\nParis\\n</parameter>\\n</function>\\n</tool_call>"""

    name = "qwen3_coder"
    openings = (_CALL, _FUNCTION)
    markers = (_CALL, _END_CALL)

    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """As ToolStyle.calls. The outer tag may be missing, and so may what closes a tag before the next one."""
        if opening == _CALL:
            yield from reader.skip_space()
            yield from reader.expect(_FUNCTION)
        while True:
            yield from self._function(reader)
            yield from reader.skip_space()
            if (yield from reader.one_of(_END_CALL)) or not (yield from reader.one_of(_FUNCTION)):
                return

    def _function(self, reader: Reader) -> Reading[None]:
        name, _ = yield from reader.name_until(">")
        name = name.strip()
        reader.begin(name)
        reader.give("{")
        seen: set[str] = set()
        yield from reader.skip_space()
        while (yield from reader.expect(_PARAMETER, _END_FUNCTION)) == _PARAMETER:
            parameter, _ = yield from reader.name_until(">")
            if parameter in seen:
                raise NotACallError(f"{parameter!r:.80} is there twice")
            text, end = yield from reader.until(_END_PARAMETER, _END_FUNCTION)
            text = text.removeprefix("\n").removesuffix("\n")
            value = value_as_json(text, reader.tools.parameter_of(name, parameter))
            reader.give(f"{', ' if seen else ''}{json.dumps(parameter, ensure_ascii=False)}: {value}")
            seen.add(parameter)
            if end == _END_FUNCTION:
                break
            yield from reader.skip_space()
        reader.give("}")
        reader.whole()

    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """As ToolStyle.call_grammar. Parameters come in the order of the schema."""
        rules = [f"call: {' | '.join(f'call_{number}' for number in range(len(tools.names)))}"]
        for number, name in enumerate(tools.names):
            schema = tools.schema_of(name)
            required = schema.get("required")
            parts = []
            for place, key in enumerate(schema.get("properties") or {}):
                rule = f"value_{number}_{place}"
                own = tools.parameter_of(name, key)
                value, end = "", f"\n{_END_PARAMETER}\n"
                if types_of(own) <= {"string"}:
                    value = f"{rule}[suffix={lark_text(end)}]: /(?s:.*)/"
                    part = f"({lark_text(f'{_PARAMETER}{key}>{chr(10)}')} {rule})"
                else:
                    definitions = {k: schema[k] for k in ("$defs", "definitions") if k in schema}
                    value = f"{rule}: {lark_json({**definitions, **own})}"
                    part = f"({lark_text(f'{_PARAMETER}{key}>{chr(10)}')} {rule} {lark_text(end)})"
                rules.append(value)
                is_required = isinstance(required, list) and key in required
                parts.append(part if is_required else f"{part}?")
            head, tail = lark_text(f"\n{_FUNCTION}{name}>\n"), lark_text(f"{_END_FUNCTION}\n")
            rules.append(f"call_{number}: {terminal(_CALL)} {head} {' '.join(parts)} {tail} {terminal(_END_CALL)}")
        calls = repeated("call", lark_text("\n"), is_parallel=tools.is_parallel)
        return "\n".join((f"start: {calls}", *rules, ""))
