"""Tools of Ollama's API: what a chat offers, and the calls of its answer, which are told whole. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_TOOLS
from corral.protocol.ollama.fields import Fields
from corral.protocol.tool_arguments import read_arguments
from corral.tool_call import ToolCallDelta


def read_tools(fields: Fields) -> list[dict[str, Any]] | None:
    """The tools that a body offers, as templates want them.

    Raises:
        InvalidRequest: a wrong type, in Ollama's words.
    """
    entries = fields.objects("tools")
    if len(entries) > MAX_TOOLS:
        raise LimitExceeded("tools", len(entries), MAX_TOOLS)
    return [_read_tool(entry) for entry in entries] or None


def _read_tool(fields: Fields) -> dict[str, Any]:
    function = fields.inner("function")
    if not (name := function.text("name")):
        raise InvalidRequest("a tool has no function name", param="tools.function.name")
    found: dict[str, Any] = {"name": name, "description": function.text("description")}
    found["parameters"] = function.mapping("parameters")
    return {"type": "function", "function": found}


class Calls:
    """The calls of one answer; what turns out to be none is text."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[str, list[str]]] = {}
        self._num_told = 0

    def push(self, deltas: Iterable[ToolCallDelta]) -> tuple[str, list[dict[str, Any]]]:
        """The text and the calls that became whole."""
        texts: list[str] = []
        told: list[dict[str, Any]] = []
        for delta in deltas:
            name, parts = self._open.setdefault(delta.index, (delta.name, []))
            if delta.broken:
                del self._open[delta.index]
                texts.append(delta.broken)
                continue
            parts.append(delta.arguments)
            if delta.is_whole:
                del self._open[delta.index]
                arguments = read_arguments("".join(parts))
                if arguments is None:
                    texts.append(f"{name}{''.join(parts)}")
                else:
                    told.append(self._tell(name, arguments))
        return "".join(texts), told

    def finish(self) -> str:
        """The text of calls that were cut off."""
        text = "".join(f"{name}{''.join(parts)}" for name, parts in self._open.values())
        self._open.clear()
        return text

    def _tell(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        index = self._num_told
        self._num_told += 1
        function = {"index": index, "name": name, "arguments": arguments}
        return {"id": f"call_{secrets.token_hex(4)}", "function": function}
