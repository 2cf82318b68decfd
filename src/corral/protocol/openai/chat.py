"""OpenAI's /v1/chat/completions: body -> Request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import MAX_DOCUMENTS, MAX_TEMPLATE_KWARGS
from corral.protocol.fields import read_fields, show_value
from corral.protocol.openai.messages import parse_messages
from corral.protocol.openai.sampling import REASONS, UNSUPPORTED_ANYWHERE, SamplingFields, check_top
from corral.protocol.openai.tools import parse_function_call, parse_functions, parse_tool_choice, parse_tools
from corral.request import Request, new_request_id
from corral.tool_call import ToolChoice

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    **UNSUPPORTED_ANYWHERE,
    "audio": (None,),
    "chat_template": (None,),
    "media_io_kwargs": (None, {}),
    "mm_processor_kwargs": (None, {}),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
}
HARMLESS = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)


class ChatFields(SamplingFields):
    messages: list[Any]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None
    thinking_token_budget: int | None = None
    echo: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: list[Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A parsed request and how its answer is to be sent.

    Args:
        is_legacy: the client knows `functions`, of which an answer calls one at most.
        is_named: the client has named the one tool to be called.
        echo: what each answer's text begins with.
    """

    request: Request
    stream: bool
    include_usage: bool
    response_id: str = ""
    continuous_usage: bool = False
    is_legacy: bool = False
    is_named: bool = False
    include_reasoning: bool = True
    with_logprobs: bool = False
    with_prompt_logprobs: bool = False
    return_token_ids: bool = False
    tokens_as_ids: bool = False
    echo: str = ""


def parse_chat(body: Mapping[str, Any], ignored: list[str] | None = None) -> ChatCall:
    """Reads a body.

    Args:
        ignored: gets the paths of unknown fields; None refuses them.

    Raises:
        InvalidRequest: names the field at fault; what is unknown or cannot be obeyed is refused, not dropped.
    """
    fields = read_fields(ChatFields, body, unsupported=UNSUPPORTED, harmless=HARMLESS, reasons=REASONS, ignored=ignored)
    messages = parse_messages(fields.messages, ignored)
    tools, choice, is_legacy = _tools(fields, ignored)
    request_id = new_request_id("chatcmpl")
    continues = _continues(fields)
    request = Request(
        request_id=request_id,
        messages=messages,
        sampling=fields.sampling(_max_tokens(fields), _logprobs(fields)),
        think=_think(fields.reasoning_effort),
        thinking_budget=_thinking_budget(fields.thinking_token_budget),
        tools=tools,
        tool_choice=choice,
        grammar=fields.grammar(ignored),
        template_kwargs=_template_kwargs(fields),
        add_generation_prompt=fields.add_generation_prompt is not False and not continues,
        continue_final_message=continues,
        # A template writes the tokens itself that stand before a text; a client may ask for them once more.
        add_special_tokens=bool(fields.add_special_tokens),
        **fields.request_fields(),
    )
    last = messages[-1]
    return ChatCall(
        request,
        stream=bool(fields.stream),
        include_usage=fields.include_usage(),
        response_id=fields.response_id(request_id),
        continuous_usage=fields.continuous_usage(),
        is_legacy=is_legacy,
        is_named=_is_named(fields),
        include_reasoning=fields.include_reasoning is not False,
        with_logprobs=bool(fields.logprobs),
        with_prompt_logprobs=fields.prompt_logprobs is not None,
        return_token_ids=bool(fields.return_token_ids),
        tokens_as_ids=bool(fields.return_tokens_as_token_ids),
        echo=last["content"] if fields.echo and last["role"] == "assistant" else "",
    )


def _tools(fields: ChatFields, ignored: list[str] | None) -> tuple[list[dict[str, Any]] | None, ToolChoice, bool]:
    """The tools, the choice among them, and whether the client says `functions`."""
    if fields.functions and fields.tools:
        raise InvalidRequest("functions and tools are given; give one of them", param="functions")
    if fields.functions:
        if fields.tool_choice is not None:
            raise InvalidRequest("tool_choice is for tools; functions go with function_call", param="tool_choice")
        functions = parse_functions(fields.functions, ignored=ignored)
        return functions, parse_function_call(fields.function_call, functions, ignored), True
    if fields.function_call not in (None, "none", "auto"):
        raise InvalidRequest("function_call is only allowed with functions", param="function_call")
    tools = parse_tools(fields.tools or [], ignored=ignored)
    choice = parse_tool_choice(fields.tool_choice, tools, is_parallel=fields.parallel_tool_calls, ignored=ignored)
    return tools or None, choice, False


def _is_named(fields: ChatFields) -> bool:
    choice = fields.tool_choice
    return isinstance(fields.function_call, dict) or (isinstance(choice, dict) and choice.get("type") == "function")


def _max_tokens(fields: ChatFields) -> int | None:
    old, new = fields.max_tokens, fields.max_completion_tokens
    if old is not None and new is not None and old != new:
        message = f"max_tokens is {show_value(old)} and max_completion_tokens is {show_value(new)}; give one of them"
        raise InvalidRequest(message, param="max_completion_tokens")
    if old is None and new is not None and not 1 <= new <= 1 << 31:
        message = f"max_completion_tokens is {show_value(new)}; it must be a whole number from 1 to {1 << 31}"
        raise InvalidRequest(message, param="max_completion_tokens")
    return old if new is None else new


def _logprobs(fields: ChatFields) -> int | None:
    check_top("top_logprobs", fields.top_logprobs)
    if fields.logprobs:
        return fields.top_logprobs or 0
    if fields.top_logprobs:
        raise InvalidRequest("top_logprobs is only allowed when logprobs is true", param="top_logprobs")
    return None


def _think(effort: str | None) -> bool | str | None:
    if effort is None:
        return None
    if effort not in EFFORTS:
        message = f"reasoning_effort is {show_value(effort)}; it must be one of {', '.join(EFFORTS)}"
        raise InvalidRequest(message, param="reasoning_effort", code="invalid_value")
    return False if effort == "none" else effort


def _thinking_budget(budget: int | None) -> int | None:
    if budget is not None and not 0 <= budget <= 1 << 31:
        message = f"thinking_token_budget is {show_value(budget)}; it must be a whole number from 0 to {1 << 31}"
        raise InvalidRequest(message, param="thinking_token_budget", code="invalid_value")
    return budget


def _continues(fields: ChatFields) -> bool:
    if fields.continue_final_message and fields.add_generation_prompt:
        message = "continue_final_message and add_generation_prompt are both true; the turn is either old or new"
        raise InvalidRequest(message, param="continue_final_message")
    return bool(fields.continue_final_message)


def _template_kwargs(fields: ChatFields) -> dict[str, Any]:
    kwargs = dict(fields.chat_template_kwargs or {})
    if len(kwargs) > MAX_TEMPLATE_KWARGS:
        raise LimitExceeded("chat_template_kwargs", len(kwargs), MAX_TEMPLATE_KWARGS)
    if fields.documents:
        if len(fields.documents) > MAX_DOCUMENTS:
            raise LimitExceeded("documents", len(fields.documents), MAX_DOCUMENTS)
        for position, document in enumerate(fields.documents):
            if not isinstance(document, dict):
                path = f"documents[{position}]"
                message = f"{path} is {show_value(document)}; it must be an object"
                raise InvalidRequest(message, param=path, code="invalid_type")
        kwargs["documents"] = fields.documents
    return kwargs
