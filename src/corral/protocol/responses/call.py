"""OpenAI's POST /v1/responses: body -> Request and the settings that the answer repeats. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BeforeValidator

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_METADATA
from corral.protocol.fields import StrictModel, read_fields, show_value
from corral.protocol.ids import new_id
from corral.protocol.openai.sampling import MAX_TEMPERATURE
from corral.protocol.responses.input import Item, list_items, to_messages
from corral.protocol.responses.tools import parse_choice, parse_text, parse_tools
from corral.request import Request
from corral.sampling_params import SamplingParams

MAX_METADATA_KEY = 64  # characters
MAX_METADATA_VALUE = 512
LOGPROBS = "message.output_text.logprobs"
INCLUDES = frozenset(
    {
        *("code_interpreter_call.outputs", "computer_call_output.output.image_url", "file_search_call.results"),
        *("message.input_image.image_url", LOGPROBS, "reasoning.encrypted_content"),
        *("web_search_call.action.sources", "web_search_call.results"),
    }
)  # but for the log-probabilities, each adds to items that no answer of ours has
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "background": (None, False),
    "context_management": (None, []),
    "conversation": (None,),
    "logit_bias": (None, {}),
    "max_tool_calls": (None,),
    "moderation": (None,),
    "n": (None, 1),
    "prompt": (None,),
}
HARMLESS = frozenset({"client_metadata", "prompt_cache_options", "prompt_cache_retention"})
_SAMPLING = (
    *("frequency_penalty", "ignore_eos", "min_p", "min_tokens", "presence_penalty", "repetition_penalty"),
    *("seed", "skip_special_tokens", "temperature", "top_k", "top_p"),
)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class StreamOptions(StrictModel):
    include_obfuscation: bool | None = None  # accepted: padding against traffic analysis is the proxy's business


class ReasoningFields(StrictModel):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesFields(StrictModel):
    model: str
    input: Any
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    include: list[Any] | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    reasoning: ReasoningFields | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    text: dict[str, Any] | None = None
    tool_choice: Any = None
    tools: list[Any] | None = None
    top_logprobs: int | None = None
    truncation: str | None = None
    user: str | None = None
    # vLLM's
    cache_salt: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    frequency_penalty: float | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    skip_special_tokens: bool | None = None
    stop: Annotated[list[Any] | None, BeforeValidator(_as_list)] = None
    stop_token_ids: list[Any] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


@dataclass(frozen=True, slots=True)
class ResponsesCall:
    """A parsed body. Its request has no messages until the items of earlier responses are there: see `with_history`.

    Args:
        items: the input, with ids; item references are still to be resolved.
        settings: what the answer repeats.
    """

    request: Request
    items: list[Item]
    instructions: str | None
    previous_id: str | None
    store: bool
    stream: bool
    settings: dict[str, Any]

    @property
    def references(self) -> list[str]:
        """Ids of the stored items that the input refers to."""
        return [item["id"] for item in self.items if item["type"] == "item_reference"]

    def resolved(self, found: Mapping[str, Item]) -> ResponsesCall:
        """With stored items in the place of references.

        Raises:
            InvalidRequest: one was not found.
        """
        items = []
        for index, item in enumerate(self.items):
            if item["type"] == "item_reference":
                if item["id"] not in found:
                    message = f"Item with id '{item['id'][:100]}' not found."
                    raise InvalidRequest(message, param=f"input[{index}].id", code="item_not_found")
                item = found[item["id"]]
            items.append(item)
        return replace(self, items=items)

    def with_history(self, history: Sequence[Item]) -> Request:
        """The request, whose messages are the instructions, the items before the input, and the input.

        Raises:
            InvalidRequest: the output of a call that nothing has called.
        """
        system = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        return replace(self.request, messages=[*system, *to_messages([*history, *self.items])])


def parse_responses(body: Mapping[str, Any], ignored: list[str] | None = None) -> ResponsesCall:
    """Reads a body.

    Args:
        ignored: gets the paths of unknown fields; None refuses them.

    Raises:
        InvalidRequest: names the field at fault; unknown fields and those not supported are refused, not dropped.
    """
    fields = read_fields(ResponsesFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS, ignored=ignored)
    if fields.truncation not in (None, "disabled"):
        message = f"truncation is {show_value(fields.truncation)}; only 'disabled' is supported: Corral refuses an "
        message += "input that is longer than the context rather than drop a part of it"
        raise InvalidRequest(message, param="truncation", code="unsupported_parameter")
    if fields.stream_options is not None and not fields.stream:
        raise InvalidRequest("stream_options is only allowed when stream is true", param="stream_options")
    tools = parse_tools(fields.tools or [], ignored)
    names = [tool["function"]["name"] for tool in tools]
    choice = parse_choice(
        fields.tool_choice, names, is_parallel=fields.parallel_tool_calls is not False, ignored=ignored
    )
    sampling = _sampling(fields)
    request = Request(
        request_id=new_id("resp"),
        model=fields.model,
        messages=[],
        sampling=sampling,
        think=_think(fields.reasoning),
        cache_salt=fields.cache_salt or "",
        tools=tools or None,
        tool_choice=choice,
        grammar=parse_text(fields.text, ignored),
        template_kwargs=fields.chat_template_kwargs or {},
    )
    return ResponsesCall(
        request,
        list_items(fields.input, ignored),
        fields.instructions,
        fields.previous_response_id,
        store=fields.store is not False,
        stream=bool(fields.stream),
        settings=_settings(fields, sampling),
    )


def _sampling(fields: ResponsesFields) -> SamplingParams:
    if fields.temperature is not None and not 0.0 <= fields.temperature <= MAX_TEMPERATURE:
        message = f"temperature is {fields.temperature!r}; it must be a number from 0 to {MAX_TEMPERATURE:g}"
        raise InvalidRequest(message, param="temperature")
    for index, name in enumerate(fields.include or []):
        if not isinstance(name, str) or name not in INCLUDES:
            message = f"include[{index}] is {show_value(name)}; it must be one of {', '.join(sorted(INCLUDES))}"
            raise InvalidRequest(message, param=f"include[{index}]", code="invalid_value")
    top, has_logprobs = fields.top_logprobs, LOGPROBS in (fields.include or [])
    if top is not None and not 0 <= top <= 20:
        raise InvalidRequest(f"top_logprobs is {top}; it must be a whole number from 0 to 20", param="top_logprobs")
    if top and not has_logprobs:
        message = f"top_logprobs is only allowed when include holds {LOGPROBS!r}"
        raise InvalidRequest(message, param="top_logprobs")
    if fields.max_output_tokens is not None and fields.max_output_tokens < 1:
        message = f"max_output_tokens is {fields.max_output_tokens}; it must be at least 1"
        raise InvalidRequest(message, param="max_output_tokens")
    given = {name: value for name in _SAMPLING if (value := getattr(fields, name)) is not None}
    return SamplingParams(
        **given,
        stop=tuple(fields.stop or ()),
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        include_stop_str=bool(fields.include_stop_str_in_output),
        max_tokens=fields.max_output_tokens,
        logprobs=(top or 0) if has_logprobs else None,
    )


def _think(fields: ReasoningFields | None) -> bool | str | None:
    if fields is None:
        return None
    for name in ("summary", "generate_summary"):
        if getattr(fields, name) not in (None, "auto"):
            path = f"reasoning.{name}"
            message = f"{path} is not supported: Corral shows the reasoning itself, as reasoning_text, and sums up none"
            raise InvalidRequest(message, param=path, code="unsupported_parameter")
    if fields.effort is None or fields.effort in EFFORTS:
        return False if fields.effort == "none" else fields.effort
    message = f"reasoning.effort is {show_value(fields.effort)}; it must be one of {', '.join(EFFORTS)}"
    raise InvalidRequest(message, param="reasoning.effort", code="invalid_value")


def _check_metadata(metadata: dict[str, Any]) -> dict[str, str]:
    if len(metadata) > MAX_METADATA:
        raise LimitExceeded("metadata", len(metadata), MAX_METADATA)
    for key, value in metadata.items():
        if len(key) > MAX_METADATA_KEY or not isinstance(value, str) or len(value) > MAX_METADATA_VALUE:
            message = f"metadata holds texts of at most {MAX_METADATA_VALUE} characters under keys of at most "
            raise InvalidRequest(f"{message}{MAX_METADATA_KEY}", param="metadata", code="invalid_value")
    return metadata


def _settings(fields: ResponsesFields, sampling: SamplingParams) -> dict[str, Any]:
    text = {"format": {"type": "text"}, **{k: v for k, v in (fields.text or {}).items() if v is not None}}
    tools = [{"parameters": None, "strict": None, **tool} for tool in fields.tools or []]
    return {
        "background": False,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "max_tool_calls": None,
        "metadata": _check_metadata(fields.metadata or {}),
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "previous_response_id": fields.previous_response_id,
        "prompt_cache_key": fields.prompt_cache_key,
        "reasoning": {"effort": fields.reasoning.effort if fields.reasoning else None, "summary": None},
        "safety_identifier": fields.safety_identifier,
        "service_tier": "default",
        "store": fields.store is not False,
        "temperature": sampling.temperature,
        "text": text,
        "tool_choice": "auto" if fields.tool_choice is None else fields.tool_choice,
        "tools": tools,
        "top_logprobs": fields.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": fields.user,
    }
