"""Pieces of llguidance's Lark that the styles' grammars are made of."""

from __future__ import annotations

import json

from corral.text.tools.offered import OfferedTools

MAX_CALLS = 16  # of an answer that has to call


def lark_text(text: str) -> str:
    """A text as Lark's string: its escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)


def lark_json(schema: object) -> str:
    """What stands for a JSON value that the schema allows."""
    return f"%json {json.dumps(schema, ensure_ascii=False)}"


def repeated(rule: str, separator: str, *, is_parallel: bool) -> str:
    """One of it, or several, but not for ever: a small model that must call may find no end."""
    return f"{rule} ({separator} {rule}){{0,{MAX_CALLS - 1}}}" if is_parallel else rule


def json_call_rules(tools: OfferedTools, keys: tuple[str, str]) -> str:
    """The rule `call`: {"name": "f", "arguments": {...}} of one of the tools."""
    name_key, arguments_key = (json.dumps(key) for key in keys)
    rules = [f"call: {' | '.join(f'call_{number}' for number in range(len(tools.names)))}"]
    for number, name in enumerate(tools.names):
        head = f"{{{name_key}: {json.dumps(name, ensure_ascii=False)}, {arguments_key}: "
        rules.append(f"call_{number}: {lark_text(head)} arguments_{number} {lark_text('}')}")
        rules.append(f"arguments_{number}: {lark_json(tools.schema_of(name))}")
    return "\n".join(rules) + "\n"
