"""Anthropic's /v1/messages and /v1/messages/count_tokens: body -> Request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from corral.errors import InvalidRequest
from corral.grammar import Grammar
from corral.protocol.anthropic.content import Ignored, parse_messages, parse_system
from corral.protocol.anthropic.tools import parse_choice, parse_tools
from corral.protocol.fields import StrictModel, read_fields, show_value, validate
from corral.protocol.ids import new_id
from corral.protocol.openai.format import schema_grammar
from corral.request import Request
from corral.sampling_params import SamplingParams

MAX_TEMPERATURE = 1.0  # Anthropic's; others allow more
EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}
THINKING = ("enabled", "adaptive", "disabled")
DISPLAYS = (None, "summarized", "omitted")
_KEEP_ALL = {"type": "clear_thinking_20251015", "keep": "all"}  # the edit that edits nothing; Claude Code sends it

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "container": (None,),
    "context_management": (None, {}, {"edits": []}, {"edits": [_KEEP_ALL]}),
    "diagnostics": (None,),
    "fallbacks": (None, []),
    "mcp_servers": (None, []),
    "speed": (None, "standard"),
}
HARMLESS = frozenset({"cache_control", "inference_geo", "metadata", "service_tier", "user_profile_id", "workspace_id"})


class OutputFields(StrictModel):
    effort: str | None = None
    format: Any = None


class ThinkingFields(StrictModel):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class CountTokensFields(StrictModel):
    model: str
    messages: list[Any]
    system: Any = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    thinking: Any = None
    output_config: Any = None
    output_format: Any = None


class MessagesFields(CountTokensFields):
    max_tokens: int
    stop_sequences: list[Any] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


@dataclass(frozen=True, slots=True)
class MessagesCall:
    """A parsed request and how its answer is to be sent.

    Args:
        shows_thinking: thinking is told; otherwise only that there was some.
        stop_sequences: the client's own; those of a Modelfile end an answer without a word.
        eager_tools: names of tools whose input is streamed as it is written, not when it is whole.
        is_clamped: the answer is cut by the context, not by max_tokens, which asked for more.
        ignored: what was asked for that changes nothing with this model.
    """

    request: Request
    stream: bool = False
    shows_thinking: bool = True
    stop_sequences: tuple[str, ...] = ()
    eager_tools: frozenset[str] = frozenset()
    is_clamped: bool = False
    ignored: tuple[str, ...] = ()

    def clamped(self) -> MessagesCall:
        """With all tokens that the context leaves: they are fewer than max_tokens asked for."""
        sampling = replace(self.request.sampling, max_tokens=None)
        return replace(self, request=replace(self.request, sampling=sampling), is_clamped=True)

    def without_thinking(self) -> MessagesCall:
        """For a model that cannot think; Anthropic's clients ask every model to."""
        if not self.request.think:
            return self
        request = replace(self.request, think=None, thinking_budget=None)
        return replace(self, request=request, ignored=(*self.ignored, "thinking"))


def parse_create(body: Mapping[str, Any], defaults: Mapping[str, Any], ignored: Ignored = None) -> MessagesCall:
    """Reads a body of /v1/messages.

    Args:
        defaults: fields of SamplingParams where the client gave none.
        ignored: gets the paths of unknown fields; None refuses them.

    Raises:
        InvalidRequest: names the field at fault; unknown fields and those that cannot be obeyed are refused.
    """
    fields = read_fields(MessagesFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS, ignored=ignored)
    call = _call(fields, ignored)
    if (budget := call.request.thinking_budget) is not None and budget >= fields.max_tokens:
        message = f"thinking.budget_tokens is {budget}; it must be less than max_tokens, {fields.max_tokens}"
        raise InvalidRequest(message, param="thinking.budget_tokens")
    sampling = _sampling(fields, defaults)
    stops = sampling.stop if fields.stop_sequences else ()
    return replace(
        call, request=replace(call.request, sampling=sampling), stream=bool(fields.stream), stop_sequences=stops
    )


def parse_count(body: Mapping[str, Any], ignored: Ignored = None) -> MessagesCall:
    """Reads a body of /v1/messages/count_tokens. As parse_create."""
    return _call(
        read_fields(CountTokensFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS, ignored=ignored), ignored
    )


def _call(fields: CountTokensFields, ignored: Ignored) -> MessagesCall:
    output = OutputFields() if fields.output_config is None else _output(fields.output_config, ignored)
    think, budget, shows_thinking = _think(fields.thinking, output.effort, ignored)
    turns = parse_messages(fields.messages, ignored)
    is_prefilled = turns[-1]["role"] == "assistant"
    if is_prefilled and turns[-1].get("tool_calls"):
        message = "messages ends with a tool_use block; the user's tool_result must follow"
        raise InvalidRequest(message, param="messages", code="invalid_value")
    if is_prefilled and not turns[-1]["content"]:
        turns.pop()
        is_prefilled = False
    messages = [*parse_system(fields.system, ignored), *turns]
    if not any(message["role"] != "system" for message in messages):
        raise InvalidRequest("messages needs a message of the user", param="messages")
    tools, eager = parse_tools(fields.tools or [], ignored)
    grammar = _grammar(output.format, fields.output_format)
    if is_prefilled and grammar is not None:
        message = "output_config.format cannot go on from an assistant's message at the end of messages"
        raise InvalidRequest(message, param="output_config.format")
    request = Request(
        request_id=new_id("msg"),
        model=fields.model,
        messages=messages,
        think=think,
        thinking_budget=budget,
        tools=tools or None,
        tool_choice=parse_choice(fields.tool_choice, [tool["function"]["name"] for tool in tools], ignored),
        grammar=grammar,
        add_generation_prompt=not is_prefilled,
        continue_final_message=is_prefilled,
    )
    return MessagesCall(request, shows_thinking=shows_thinking, eager_tools=eager)


def _output(raw: object, ignored: Ignored) -> OutputFields:
    fields = validate(OutputFields, raw, prefix="output_config", ignored=ignored)
    if fields.effort is not None and fields.effort not in EFFORTS:
        message = f"output_config.effort is {show_value(fields.effort)}; it must be one of {', '.join(EFFORTS)}"
        raise InvalidRequest(message, param="output_config.effort", code="invalid_value")
    return fields


def _think(raw: object, effort: str | None, ignored: Ignored) -> tuple[bool | str | None, int | None, bool]:
    """How to think, with how many tokens, and whether to tell."""
    level = None if effort is None else EFFORTS[effort]
    if raw is None:
        return level, None, True
    fields = validate(ThinkingFields, raw, prefix="thinking", ignored=ignored)
    if fields.type not in THINKING:
        message = f"thinking.type is {show_value(fields.type)}; it must be one of {', '.join(THINKING)}"
        raise InvalidRequest(message, param="thinking.type", code="invalid_value")
    if fields.display not in DISPLAYS:
        message = f"thinking.display is {show_value(fields.display)}; it must be summarized or omitted"
        raise InvalidRequest(message, param="thinking.display", code="invalid_value")
    shows = fields.display != "omitted"
    budget = fields.budget_tokens
    if fields.type != "enabled":
        if budget is not None:
            message = "thinking.budget_tokens is only allowed with type 'enabled'"
            raise InvalidRequest(message, param="thinking.budget_tokens")
        return (False if fields.type == "disabled" else level), None, shows
    if budget is None:
        message = "thinking.budget_tokens is required with type 'enabled'"
        raise InvalidRequest(message, param="thinking.budget_tokens", code="missing_required_parameter")
    if budget < 1:
        message = f"thinking.budget_tokens is {show_value(budget)}; it must be 1 at least"
        raise InvalidRequest(message, param="thinking.budget_tokens")
    return level or True, budget, shows


def _grammar(new: object, old: object) -> Grammar | None:
    """What the answer must look like; `old` is the name that the field had first."""
    if new is not None and old is not None:
        raise InvalidRequest("give output_config.format or output_format, not both", param="output_format")
    raw, path = (new, "output_config.format") if new is not None else (old, "output_format")
    if raw is None:
        return None
    if isinstance(raw, dict) and raw.get("type") != "json_schema":
        message = f"{path}.type is {show_value(raw.get('type'))}; it must be 'json_schema'"
        raise InvalidRequest(message, param=f"{path}.type", code="invalid_value")
    if isinstance(raw, dict) and set(raw) == {"type", "schema"} and isinstance(raw["schema"], dict):
        return schema_grammar(raw["schema"], f"{path}.schema")
    message = f'{path} is {show_value(raw)}; it must be {{"type": "json_schema", "schema": an object}}'
    raise InvalidRequest(message, param=path, code="invalid_type")


def _sampling(fields: MessagesFields, defaults: Mapping[str, Any]) -> SamplingParams:
    temperature = fields.temperature
    if temperature is not None and not 0.0 <= temperature <= MAX_TEMPERATURE:
        message = f"temperature is {temperature!r}; it must be a number from 0 to {MAX_TEMPERATURE:g}"
        raise InvalidRequest(message, param="temperature")
    given: dict[str, Any] = {"max_tokens": fields.max_tokens}
    given |= {name: value for name in ("temperature", "top_k", "top_p") if (value := getattr(fields, name)) is not None}
    if fields.stop_sequences:
        given["stop"] = _stops(fields.stop_sequences)
    return SamplingParams(**{**{name: value for name, value in defaults.items() if value is not None}, **given})


def _stops(raw: list[Any]) -> tuple[str, ...]:
    for position, stop in enumerate(raw):
        if not isinstance(stop, str) or not stop:
            path = f"stop_sequences[{position}]"
            message = f"{path} is {show_value(stop)}; it must be a text that is not empty"
            raise InvalidRequest(message, param=path, code="invalid_type")
    return tuple(raw)
