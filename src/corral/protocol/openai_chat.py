"""OpenAI's /v1/chat/completions: body -> Request, RequestOutput -> chunks and answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from corral.errors import InvalidRequest
from corral.protocol.answer import Answers, encode_usage
from corral.protocol.fields import StrictModel, read_fields, show_value, validate
from corral.protocol.openai_errors import reply_to
from corral.protocol.openai_sampling import SamplingFields
from corral.protocol.sse import DONE, encode_event
from corral.request import Request, RequestOutput, Usage, new_request_id

MAX_MESSAGES = 10_000

ROLES = ("system", "developer", "user", "assistant", "tool")

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
    "verbosity": (None,),
    "web_search_options": (None,),
}
HARMLESS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
# Fields that clients echo from an answer into the next request; empty, they say nothing.
_ECHOED: dict[str, tuple[Any, ...]] = {
    "annotations": (None, []),
    "audio": (None,),
    "function_call": (None,),
    "refusal": (None,),
    "tool_calls": (None, []),
}


class ChatFields(SamplingFields):
    messages: list[Any]
    max_completion_tokens: int | None = None


class MessageFields(StrictModel):
    role: str
    content: Any = None
    name: str | None = None
    tool_call_id: str | None = None


class TextPart(StrictModel):
    type: Literal["text"]
    text: str


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A parsed request and how its answer is to be sent."""

    request: Request
    stream: bool
    include_usage: bool


def parse_chat(body: Mapping[str, Any]) -> ChatCall:
    """Reads a body.

    Raises:
        InvalidRequest: names the field at fault; unknown fields and those not supported yet are refused, not dropped.
    """
    fields = read_fields(ChatFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS)
    if not 1 <= len(fields.messages) <= MAX_MESSAGES:
        message = f"messages has {len(fields.messages)} entries; from 1 to {MAX_MESSAGES} are allowed"
        raise InvalidRequest(message, param="messages")
    request = Request(
        request_id=new_request_id("chatcmpl"),
        model=fields.model,
        messages=[_parse_message(f"messages[{i}]", raw) for i, raw in enumerate(fields.messages)],
        sampling=fields.sampling(_max_tokens(fields)),
    )
    return ChatCall(request, stream=bool(fields.stream), include_usage=fields.include_usage())


def _max_tokens(fields: ChatFields) -> int | None:
    old, new = fields.max_tokens, fields.max_completion_tokens
    if old is not None and new is not None and old != new:
        message = f"max_tokens is {old} and max_completion_tokens is {new}; give one of them"
        raise InvalidRequest(message, param="max_completion_tokens")
    return old if new is None else new


def _parse_message(where: str, raw: object) -> dict[str, Any]:
    if isinstance(raw, dict):
        for name, neutral in _ECHOED.items():
            if raw.get(name) not in neutral:
                path = f"{where}.{name}"
                raise InvalidRequest(f"{path} is not supported", param=path, code="unsupported_parameter")
        raw = {name: value for name, value in raw.items() if name not in _ECHOED}
    fields = validate(MessageFields, raw, prefix=where)
    if fields.role not in ROLES:
        message = f"{where}.role is {show_value(fields.role)}; it must be one of {', '.join(ROLES)}"
        raise InvalidRequest(message, param=f"{where}.role", code="invalid_value")
    if fields.content is None and fields.role != "assistant":
        path = f"{where}.content"
        raise InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
    # Templates know "system"; OpenAI renamed it "developer" for its own newer models.
    role = "system" if fields.role == "developer" else fields.role
    message_out: dict[str, Any] = {"role": role, "content": _parse_content(f"{where}.content", fields.content)}
    if fields.name is not None:
        message_out["name"] = fields.name
    if fields.tool_call_id is not None:
        message_out["tool_call_id"] = fields.tool_call_id
    return message_out


def _parse_content(where: str, content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        message = f"{where} is {show_value(content)}; it must be a string or a list of text parts"
        raise InvalidRequest(message, param=where, code="invalid_type")
    return "\n".join(_parse_part(f"{where}[{i}]", part) for i, part in enumerate(content))


def _parse_part(where: str, part: object) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind != "text":
        message = f"{where} is a part of type {show_value(kind)}, which is not supported; only 'text' parts are"
        raise InvalidRequest(message, param=where, code="unsupported_content_type")
    return validate(TextPart, part, prefix=where).text


class ChatStream:
    """Encodes one streamed answer: open, then encode for every output, then close."""

    def __init__(self, call: ChatCall, model: str, created: int) -> None:
        self._num_answers = call.request.sampling.n
        self._include_usage = call.include_usage
        self._usage = Usage()
        self._base = {
            "id": call.request.request_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }

    def open(self) -> bytes:
        """The first chunk of each answer: its role, and no text."""
        roles = ({"role": "assistant", "content": ""} for _ in range(self._num_answers))
        return b"".join(self._event(index, delta, None) for index, delta in enumerate(roles))

    def encode(self, _: int, output: RequestOutput) -> bytes:
        """The events of one output; b"" when no answer gained anything to show."""
        self._usage = output.usage
        events = []
        for delta in output.deltas:
            if delta.thinking:
                events.append(self._event(delta.index, {"reasoning_content": delta.thinking}, None))
            if delta.text:
                events.append(self._event(delta.index, {"content": delta.text}, None))
            if delta.finish_reason is not None:
                events.append(self._event(delta.index, {}, delta.finish_reason.value))
        return b"".join(events)

    def close(self) -> bytes:
        """The usage chunk, if asked for, and the end mark."""
        if not self._include_usage:
            return DONE
        return encode_event({**self._base, "choices": [], "usage": encode_usage(self._usage)}) + DONE

    def fail(self, error: Exception) -> bytes:
        """The error as the last event; no end mark follows it."""
        return reply_to(error).event()

    def _event(self, index: int, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk: dict[str, object] = {**self._base, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None  # as OpenAI: every chunk but the last says that usage is still to come
        return encode_event(chunk)


def encode_chat_answer(call: ChatCall, answers: Answers, model: str, created: int) -> dict[str, Any]:
    """The whole answer of a request that is not streamed."""
    choices = [
        {
            "index": index,
            "message": {
                "role": "assistant",
                "content": text,
                "refusal": None,
                **({"reasoning_content": answers.thinking[index]} if answers.thinking[index] else {}),
            },
            "logprobs": None,
            "finish_reason": answers.finish_reasons[index],
        }
        for index, text in enumerate(answers.texts)
    ]
    return {
        "id": call.request.request_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": encode_usage(answers.usage),
    }
