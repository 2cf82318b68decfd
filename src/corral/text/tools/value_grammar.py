"""Grammar of Gemma's notation, made from a schema: names and types are held, the rest is left to the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corral.text.tools.grammar import lark_text
from corral.text.tools.offered import types_of

_RULES = {"integer": "integer", "number": "number", "boolean": "boolean", "null": "null", "string": "text"}


class ValueGrammar:
    """Grammars of the members of objects, and the rules that they share.

    Args:
        quote: the terminal that stands on both sides of a text.
    """

    def __init__(self, quote: str) -> None:
        self._quote = quote
        self._chains: list[str] = []

    def members(self, schema: Mapping[str, Any]) -> str:
        """The members of an object in the order of its schema, but the required ones first."""
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return ""
        listed = schema.get("required")
        required = [name for name in properties if isinstance(listed, list) and name in listed]
        optional = [name for name in properties if name not in required]
        own = {name: f"{lark_text(f'{name}:')} {self._value(properties[name])}" for name in properties}
        comma = lark_text(",")
        text = f" {comma} ".join(own[name] for name in required)
        if required:
            return " ".join((text, *(f"({comma} {own[name]})?" for name in optional)))
        # None is sure to be there, so each may be the first: the rule of one is that it comes, or the next ones do.
        rest = ""
        for name in reversed(optional):
            rule = f"chain_{len(self._chains)}"
            self._chains.append(f"{rule}: {own[name]} ({comma} {rest})? | {rest}" if rest else f"{rule}: {own[name]}")
            rest = rule
        return f"{rest}?" if rest else ""

    def _value(self, schema: Any) -> str:
        types = types_of(schema) if isinstance(schema, Mapping) else frozenset()
        rules = [_RULES[kind] for kind in sorted(types) if kind in _RULES]
        if "array" in types:
            rules.append("list")
        if "object" in types:
            rules.append("object")
        return f"({' | '.join(rules)})" if rules else "any"

    def rules(self) -> str:
        """The rules that the others refer to."""
        return (
            "\n".join(self._chains)
            + f"""
text: {self._quote} /[^<"]*/ {self._quote}
integer: /-?(0|[1-9][0-9]{{0,17}})/
number: /-?(0|[1-9][0-9]{{0,17}})(\\.[0-9]{{1,17}})?/
boolean: "true" | "false"
null: "null"
list: "[" (any ("," any)*)? "]"
object: "{{" (member ("," member)*)? "}}"
member: /[A-Za-z_][A-Za-z0-9_]*/ ":" any
any: text | number | boolean | null | list | object
"""
        )
