"""Ollama's /api/chat: body -> Request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_MESSAGES
from corral.protocol.ollama.call import Call, read_call, refuse_images
from corral.protocol.ollama.fields import Fields, shorten
from corral.protocol.ollama.tools import read_tools
from corral.request import Request

MAX_ROLE_LENGTH = 64


@dataclass(frozen=True, slots=True)
class ChatCall(Call):
    messages: tuple[dict[str, Any], ...]
    tools: list[dict[str, Any]] | None

    def request(self, parameters: Mapping[str, Any]) -> Request:
        """The Request, with the model's own `parameters` where the client gave none.

        Raises:
            InvalidRequest: it asks for what cannot be done, or a value cannot be obeyed.
        """
        return self._request(parameters, "chat", messages=list(self.messages), tools=self.tools)


def parse_chat(body: Mapping[str, Any]) -> ChatCall:
    """Reads a body.

    Raises:
        InvalidRequest: a wrong type or value, in Ollama's words.
    """
    fields = Fields(body, "ChatRequest")
    model = fields.text("model")
    if not model:
        raise InvalidRequest("model is required", param="model")
    entries = fields.objects("messages")
    if len(entries) > MAX_MESSAGES:
        raise LimitExceeded("messages", len(entries), MAX_MESSAGES)
    images = [image for entry in entries for image in entry.items("images")]
    return ChatCall(
        **read_call(fields, is_empty=not entries, refusals=(refuse_images(model, images),)),
        messages=tuple(_read_message(entry) for entry in entries),
        tools=read_tools(fields),
    )


def _read_message(fields: Fields) -> dict[str, Any]:
    """A message as templates want it. Roles are the template's business: some models have roles of their own."""
    role = fields.text("role").lower()
    if not role or len(role) > MAX_ROLE_LENGTH:
        raise InvalidRequest(f'invalid role: "{shorten(role)}"', param="messages.role")
    message: dict[str, Any] = {"role": role, "content": fields.text("content")}
    if thinking := fields.text("thinking"):
        message["thinking"] = thinking
    if calls := fields.objects("tool_calls"):
        message["tool_calls"] = [_read_tool_call(call) for call in calls]
    if tool_name := fields.text("tool_name"):
        message |= {"tool_name": tool_name, "name": tool_name}  # Go's templates know the one, Jinja's the other
    if call_id := fields.text("tool_call_id"):
        message["tool_call_id"] = call_id
    return message


def _read_tool_call(fields: Fields) -> dict[str, Any]:
    function = fields.inner("function")
    if not (name := function.text("name")):
        raise InvalidRequest("a tool call has no function name", param="messages.tool_calls.function.name")
    call: dict[str, Any] = {
        "type": "function",
        "function": {"name": name, "arguments": function.mapping("arguments")},
    }
    if (index := function.whole("index")) is not None:
        call["function"]["index"] = index
    if call_id := fields.text("id"):
        call["id"] = call_id
    return call
