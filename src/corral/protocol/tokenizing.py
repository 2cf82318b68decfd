"""vLLM's /tokenize, /detokenize and the /render of chats and completions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from corral.errors import InvalidRequest
from corral.protocol.fields import StrictModel, read_fields
from corral.protocol.openai.chat import parse_chat
from corral.protocol.token_inputs import read_token_ids
from corral.request import Detokenized, DetokenizeRequest, RenderedPrompt, Request, new_request_id

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "chat_template": (None,),  # a template is a program; the model's own is used
    "media_io_kwargs": (None, {}),
    "mm_processor_kwargs": (None, {}),
}
_OF_CHATS = ("add_generation_prompt", "chat_template_kwargs", "continue_final_message", "tools")


class TokenizeFields(StrictModel):
    """Of a text (`prompt`) or of a chat (`messages`)."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Any] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Any] | None = None


class DetokenizeFields(StrictModel):
    model: str | None = None
    tokens: list[Any]


@dataclass(frozen=True, slots=True)
class TokenizeCall:
    request: Request
    with_texts: bool


def parse_tokenize(body: Mapping[str, Any], ignored: list[str] | None = None) -> TokenizeCall:
    """Reads a body whose model is known.

    Args:
        ignored: gets the paths of unknown fields; None refuses them.

    Raises:
        InvalidRequest: names the field at fault.
    """
    fields = read_fields(TokenizeFields, body, unsupported=UNSUPPORTED, harmless=frozenset(), ignored=ignored)
    if (fields.prompt is None) == (fields.messages is None):
        raise InvalidRequest("give a prompt or messages, one of them", param="prompt")
    return TokenizeCall(
        _text_request(fields) if fields.messages is None else _chat_request(fields),
        with_texts=bool(fields.return_token_strs),
    )


def _text_request(fields: TokenizeFields) -> Request:
    for name in _OF_CHATS:
        if getattr(fields, name) is not None:
            raise InvalidRequest(f"{name} is for messages; a prompt has none", param=name)
    return Request(
        request_id=new_request_id("tok"),
        model=fields.model or "",
        prompt=fields.prompt,
        add_special_tokens=fields.add_special_tokens is not False,
    )


def _chat_request(fields: TokenizeFields) -> Request:
    if fields.add_special_tokens:
        message = "add_special_tokens is true; a chat has the special tokens that its template writes"
        raise InvalidRequest(message, param="add_special_tokens", code="unsupported_parameter")
    if fields.continue_final_message and fields.add_generation_prompt:
        message = "continue_final_message and add_generation_prompt are both true; the last turn stays open or ends"
        raise InvalidRequest(message, param="continue_final_message")
    tools = {"tools": fields.tools} if fields.tools else {}
    chat = parse_chat({"model": fields.model or "", "messages": fields.messages, **tools}).request
    return replace(
        chat,
        add_generation_prompt=fields.add_generation_prompt is not False and not fields.continue_final_message,
        continue_final_message=bool(fields.continue_final_message),
        template_kwargs=fields.chat_template_kwargs or {},
    )


def parse_detokenize(body: Mapping[str, Any], ignored: list[str] | None = None) -> DetokenizeRequest:
    """Reads a body whose model is known, as parse_tokenize does."""
    fields = read_fields(DetokenizeFields, body, unsupported={}, harmless=frozenset(), ignored=ignored)
    return DetokenizeRequest(new_request_id("detok"), fields.model or "", read_token_ids("tokens", fields.tokens))


def encode_tokens(rendered: RenderedPrompt, texts: Detokenized | None, max_model_len: int) -> dict[str, Any]:
    """The answer of /tokenize; `texts` are those of the single tokens, None where they are not wanted."""
    strings = None if texts is None else [text.decode("utf-8", "replace") for text in texts.token_texts]
    return {
        "count": len(rendered.token_ids),
        "max_model_len": max_model_len,
        "tokens": rendered.token_ids,
        "token_strs": strings,
    }


def encode_rendered(request: Request, rendered: RenderedPrompt, model: str) -> dict[str, Any]:
    """What the model would be given for a request: the ids, the text they are of, and the bound of the answer."""
    return {
        "request_id": request.request_id,
        "model": model,
        "token_ids": rendered.token_ids,
        "prompt": rendered.text,
        "sampling_params": {"max_tokens": request.sampling.max_tokens, "n": request.sampling.n},
    }
