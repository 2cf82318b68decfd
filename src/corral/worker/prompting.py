"""From a request to the ids of its prompt: template, thinking, suffix, and what to do with a prompt too long."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

from corral.errors import ContextLengthExceeded, InvalidRequest, UnsupportedModel
from corral.request import Overflow, Request
from corral.sampling_params import SamplingParams
from corral.text.now import time_is
from corral.text.reasoning import Markers, markers_of, opens_thinking
from corral.text.rendered import Rendered
from corral.text.templates import PromptTemplate, template_for
from corral.text.tokenizer import Tokenizer
from corral.text.tools.detect import style_of
from corral.text.tools.style import ToolStyle
from corral.tool_call import ToolMode
from corral.worker.overflow import Fitted, cut_ids, fit_messages, fit_text

_MAX_TEMPLATES = 16  # of requests, kept compiled
_MIN_CONTEXT = 2  # a token of prompt and one of answer
_NO_LIMIT = 1 << 40  # tokens: more than any body that was let in can hold
# How models that were trained for it are asked to fill a gap; their templates seldom say.
_INFILL = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request that is ready for the engine.

    Args:
        ids: at least one, and fewer than the context holds.
        text: what they were made of, as far as it is known: of ids given by the client nothing is.
        sampling: the request's, with as many tokens as the context leaves.
        stop_texts: what ends an answer besides the request's own stop strings.
        markers: of thinking that is to be taken apart from the answer; None if there is none.
        is_thinking: the prompt has opened the thinking already.
        tool_style: how calls are written; None if none are to be looked for.
        dropped_messages, dropped_tokens: what was left out.
    """

    ids: list[int]
    sampling: SamplingParams
    stop_texts: tuple[str, ...] = ()
    markers: Markers | None = None
    is_thinking: bool = False
    tool_style: ToolStyle | None = None
    dropped_messages: int = 0
    dropped_tokens: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """A template and what it says of thinking and of calls."""

    template: PromptTemplate
    markers: Markers | None
    style: ToolStyle | None


class Prompting:
    """Prompts of one model. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, template: PromptTemplate, max_model_len: int, name: str) -> None:
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._name = name
        self._own = self._known(template)
        self._others: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()
        infill = next((texts for texts in _INFILL if tokenizer.control_texts.issuperset(texts)), None)
        self._infill = None if infill is None else "{}{{{{ .Prompt }}}}{}{{{{ .Suffix }}}}{}".format(*infill)

    def prepare(self, request: Request, *, must_fit: bool = True) -> Prompt:
        """The prompt of a request.

        Args:
            must_fit: it is to be answered, so it needs a token and has to leave room in the context. Otherwise it is
                only looked at: it may have any length, and of a raw prompt none.

        Raises:
            InvalidRequest: it can never be answered, or its own template cannot be read; names the field.
        """
        with time_is(request.at):
            return self._prepare(request, must_fit=must_fit)

    def _prepare(self, request: Request, *, must_fit: bool) -> Prompt:
        known = self._own if request.template is None else self._override(request.template)
        if request.think and not known.template.knows_thinking:
            raise InvalidRequest(f'"{self._name_for(request)}" does not support thinking', param="think")
        if request.tools and known.style is None:
            raise InvalidRequest(f'"{self._name_for(request)}" does not support tools', param="tools")
        limit = self._limit(request) if must_fit else _NO_LIMIT
        if request.suffix:
            return self._suffix_prompt(request, known, limit)
        if request.messages is not None:
            return self._chat_prompt(request, known, limit)
        if not request.prompt and not must_fit:
            special = request.add_special_tokens and isinstance(request.prompt, str)
            return Prompt(self._tokenizer.encode("", add_special=special, parse_special=False), request.sampling)
        return self._raw_prompt(request, limit)

    def _name_for(self, request: Request) -> str:
        return request.model or self._name

    def _limit(self, request: Request) -> int:
        if request.max_context is None:
            return self._max_model_len
        if request.max_context < _MIN_CONTEXT:
            raise InvalidRequest(
                f"the context is to hold {request.max_context} tokens; it must hold {_MIN_CONTEXT} at least",
                param="num_ctx",
            )
        return min(request.max_context, self._max_model_len)

    def _known(self, template: PromptTemplate) -> _Known:
        markers = markers_of(template.source, self._tokenizer) if template.knows_thinking else None
        return _Known(template, markers, style_of(template, self._tokenizer))

    def _override(self, source: str) -> _Known:
        with self._lock:
            if (known := self._others.get(source)) is not None:
                self._others.move_to_end(source)
                return known
        try:
            known = self._known(template_for(self._tokenizer, source))
        except UnsupportedModel as error:
            raise InvalidRequest(f"the template cannot be used: {error}", param="template") from None
        with self._lock:
            self._others[source] = known
            while len(self._others) > _MAX_TEMPLATES:
                self._others.popitem(last=False)
        return known

    def _chat_prompt(self, request: Request, known: _Known, limit: int) -> Prompt:
        messages = request.messages or []
        last = Rendered("", "\ufdd0")
        think = known.template.thinking_of(request.template_kwargs) if request.think is None else request.think
        think = False if think == "none" else think

        def encode(chosen: list[dict[str, object]]) -> list[int]:
            nonlocal last
            last = known.template.render_chat(
                chosen,
                think=think,
                tools=request.tools or None,
                add_generation_prompt=request.add_generation_prompt,
                continue_final_message=request.continue_final_message,
                kwargs=request.template_kwargs,
            )
            if is_strict:
                self._check_text(request, "messages", last.plain, limit)
            return self._go_on_from(request.context, self._tokenizer.encode_chat(last.text, last.guard))

        is_strict = request.overflow is Overflow.REFUSE or not _are_messages(messages)
        if is_strict:
            contents = (message.get("content") for message in messages if isinstance(message, dict))
            texts = "".join(content for content in contents if isinstance(content, str))
            self._check_text(request, "messages", texts, limit)
            fitted = Fitted(encode(messages))
        else:
            fitted = fit_messages(messages, limit, self._tokenizer, encode)
        markers = known.markers
        if think is False and markers is not None and not markers.is_constant:
            markers = None
        is_calling = bool(request.tools) and request.tool_choice.mode is not ToolMode.NONE
        prompt = self._checked(request, fitted, limit, "messages")
        return replace(
            prompt,
            text=last.plain,
            stop_texts=known.template.stop_texts,
            markers=markers,
            is_thinking=markers is not None and opens_thinking(last.plain, markers),
            tool_style=known.style if is_calling else None,
        )

    def _go_on_from(self, context: tuple[int, ...], ids: list[int]) -> list[int]:
        """The ids of an earlier exchange and then the prompt's, with one token for the beginning of text."""
        begins_anew = bool(context) and ids[:1] == [self._tokenizer.bos_id] and context[0] == self._tokenizer.bos_id
        return [*context, *ids[1 if begins_anew else 0 :]]

    def _suffix_prompt(self, request: Request, known: _Known, limit: int) -> Prompt:
        """The model writes what belongs between the prompt and the suffix."""
        if not known.template.knows_suffix:
            if self._infill is None:
                raise InvalidRequest(f'"{self._name_for(request)}" does not support insert', param="suffix")
            known = self._override(self._infill)
        text = request.prompt
        if request.messages is not None:
            last = request.messages[-1] if request.messages else None
            text = last.get("content") if isinstance(last, dict) else None
        if not isinstance(text, str):
            raise InvalidRequest("a suffix needs a prompt that is a text", param="prompt")
        self._check_text(request, "prompt", text + (request.suffix or ""), limit)
        rendered = known.template.render_suffix(text, request.suffix or "")
        ids = self._tokenizer.encode_chat(rendered.text, rendered.guard)
        return replace(self._checked(request, Fitted(ids), limit, "prompt"), text=rendered.plain)

    def _raw_prompt(self, request: Request, limit: int) -> Prompt:
        prompt = request.prompt
        if not prompt:
            raise InvalidRequest("the prompt is empty; it needs at least one character or token", param="prompt")
        if isinstance(prompt, list):
            if request.overflow is Overflow.REFUSE:
                return self._checked(request, Fitted(prompt), limit, "prompt")
            kept = cut_ids(prompt, limit)
            return self._checked(request, Fitted(kept, 0, len(prompt) - len(kept)), limit, "prompt")

        def encode(text: str) -> list[int]:
            return self._tokenizer.encode(text, add_special=request.add_special_tokens, parse_special=False)

        if request.overflow is Overflow.REFUSE:
            self._check_text(request, "prompt", prompt, limit)
            fitted = Fitted(encode(prompt))
        else:
            fitted = fit_text(prompt, limit, self._tokenizer, encode)
        return replace(self._checked(request, fitted, limit, "prompt"), text=prompt)

    def _check_text(self, request: Request, param: str, text: str, limit: int) -> None:
        """Refuses a hopelessly long text before it costs seconds in template and tokenizer."""
        if request.truncate_prompt is not None:
            return  # most of it goes anyhow
        if (least := self._tokenizer.min_num_tokens(text)) >= limit:
            raise ContextLengthExceeded(
                f"the context holds {limit} tokens; the {param} of {len(text)} characters would be {least} at least",
                param=param,
            )

    def _checked(self, request: Request, fitted: Fitted, limit: int, param: str) -> Prompt:
        """The prompt, and an answer that ends with the context."""
        if request.truncate_prompt is not None:
            fitted = replace(fitted, ids=fitted.ids[-max(request.truncate_prompt, 1) :])
        num_tokens = len(fitted.ids)
        if num_tokens == 0 and limit != _NO_LIMIT:
            raise InvalidRequest(f"the {param} came to no token at all; at least one is needed", param=param)
        if num_tokens >= limit:
            raise ContextLengthExceeded(
                f"the context holds {limit} tokens; the {param} came to {num_tokens}, and an answer needs "
                "at least one more",
                param=param,
            )
        sampling = request.sampling
        max_tokens = sampling.max_tokens
        room = limit - num_tokens
        if max_tokens is not None and max_tokens > room and request.overflow is Overflow.REFUSE:
            raise ContextLengthExceeded(
                f"the context holds {limit} tokens; {num_tokens + max_tokens} were asked for: "
                f"{num_tokens} in the {param} and {max_tokens} by max_tokens",
                param="max_tokens",
            )
        if (max_tokens is None and limit < self._max_model_len) or (max_tokens or 0) > room:
            sampling = replace(sampling, max_tokens=room, min_tokens=min(sampling.min_tokens, room))
        return Prompt(
            fitted.ids, sampling, dropped_messages=fitted.dropped_messages, dropped_tokens=fitted.dropped_tokens
        )


def _are_messages(messages: object) -> bool:
    """Whether they are well formed enough to leave some out; the template refuses the others in its own words."""
    return isinstance(messages, list) and bool(messages) and all(isinstance(message, dict) for message in messages)
