"""Messages -> prompt text, by the chat template in the model's file."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from jinja2 import Template
from jinja2.meta import find_undeclared_variables

from corral.errors import InvalidRequest, UnsupportedModel
from corral.text.call_messages import with_calls
from corral.text.final_message import cut_at_mark, with_final_mark
from corral.text.messages import checked_messages
from corral.text.rendered import Rendered
from corral.text.template_guard import TemplateGuard
from corral.text.template_kwargs import check_kwargs
from corral.text.template_limits import CURRENT_BUDGET, Budget, TemplateLimitError, TemplateLimits
from corral.text.template_sandbox import ChatTemplateEnvironment, TemplateRefusalError

logger = logging.getLogger(__name__)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_THINKING_SWITCHES = ("enable_thinking", "thinking")  # true or false, by whoever wrote the template
_THINKING_MARKS = ("<think>", "</think>", "[THINK]", "<thinking>", "reasoning_content", "reasoning_effort", "<|channel")
_SHORT_IDS = re.compile(r"\blength\s*(?:!=|==)\s*9\b")  # Mistral's templates look at ids of calls
# Corral sets these itself, and no request may say otherwise.
_OURS = frozenset(("messages", "tools", "add_generation_prompt", "continue_final_message", "tokenize", "chat_template"))


class ChatTemplate:
    """A compiled chat template; safe to use from several threads.

    Args:
        source: the file's template; None falls back to ChatML, with a warning.
        bos_token, eos_token: their texts, for templates that write them; None where the model has none.
        control_texts: Tokenizer.control_texts, which users' own text must not turn into.
        limits: what one rendering may cost.

    Attributes:
        is_fallback: the file had no template. The model may well not know ChatML.
        stop_texts: what ends an answer though it is no token of the model: ChatML's mark in the fallback.
        knows_thinking: it treats thinking in some way.
        knows_tools: it writes the tools that a request offers.
        knows_suffix: never; Jinja's templates have no such variable.

    Raises:
        UnsupportedModel: the template does not compile, or is too long.
    """

    def __init__(
        self,
        source: str | None,
        *,
        bos_token: str | None,
        eos_token: str | None,
        control_texts: Collection[str],
        limits: TemplateLimits | None = None,
    ) -> None:
        self.is_fallback = source is None
        self.stop_texts: tuple[str, ...] = ("<|im_end|>",) if self.is_fallback else ()
        if source is None:
            logger.warning("the model's file has no chat template; taking ChatML, which the model may not know")
            source = CHATML
        self.source = source
        self._thinking_switches = [name for name in _THINKING_SWITCHES if re.search(rf"\b{name}\b", source)]
        self.knows_thinking = bool(self._thinking_switches) or any(mark in source for mark in _THINKING_MARKS)
        self.knows_tools = re.search(r"\btools\b", source) is not None
        self._limits = limits or TemplateLimits()
        self._tokens = {"bos_token": bos_token or "", "eos_token": eos_token or ""}
        self._guard = TemplateGuard(control_texts, source)
        self._environment = ChatTemplateEnvironment()
        self._template = self._compile(source)
        self._wants_short_ids = _SHORT_IDS.search(source) is not None

    knows_suffix = False

    def _compile(self, source: str) -> Template:
        if len(source) > self._limits.max_source_chars:
            raise UnsupportedModel(
                f"the chat template has {len(source)} characters; {self._limits.max_source_chars} are allowed"
            )
        try:
            with _budget(self._limits):
                return self._environment.from_string(source)
        # Constants are worked out while compiling, so anything may go wrong there.
        except Exception as error:
            raise UnsupportedModel(f"the chat template does not compile: {_told(error)}") from error

    def thinking_of(self, kwargs: Mapping[str, Any]) -> bool | None:
        """What further variables say of thinking."""
        given = (kwargs[name] for name in self._thinking_switches if isinstance(kwargs.get(name), bool))
        return next(given, None)

    def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        think: bool | str | None = None,
        tools: list[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """As GoTemplate.render_chat: what `think` means is told by the variables that the template looks at."""
        variables: dict[str, Any] = dict.fromkeys(self._thinking_switches, think is not False)
        if isinstance(think, str):
            variables["reasoning_effort"] = think
        if tools is not None:
            variables["tools"] = tools
        if kwargs:
            check_kwargs(kwargs, self._variables - _OURS)
            variables.update(kwargs)
        if continue_final_message:
            plain, mark = with_final_mark(messages, self._guard, variables)
            return cut_at_mark(self.render(plain, add_generation_prompt=False, **variables), mark)
        return self.render(messages, add_generation_prompt=add_generation_prompt, **variables)

    @cached_property
    def _variables(self) -> frozenset[str]:
        """What the template reads and does not set itself."""
        with _budget(self._limits):
            return frozenset(find_undeclared_variables(self._environment.parse(self.source)))

    @cached_property
    def _wants_text_arguments(self) -> bool:
        """Whether it writes a call's arguments as they are, so that they must be JSON's text; most write JSON."""
        if self._writes_arguments(as_text=False):
            return False
        return self._writes_arguments(as_text=True)

    def _writes_arguments(self, *, as_text: bool) -> bool:
        call = {"id": "123456789", "type": "function", "function": {"name": "f", "arguments": {"needle": "x"}}}
        for content in (None, ""):
            turns: list[dict[str, Any]] = [
                {"role": "user", "content": "u"},
                {"role": "assistant", "content": content, "tool_calls": [call]},
            ]
            try:
                rendered = self._rendered(turns, {}, as_text=as_text).text
            except InvalidRequest:
                continue
            if "needle" in rendered:
                return "'needle'" not in rendered and '\\"needle' not in rendered
        return False

    def render_suffix(self, prompt: str, suffix: str) -> Rendered:
        raise InvalidRequest("the chat template has no place for a suffix", param="suffix")

    def render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool = True, **kwargs: Any) -> Rendered:
        """The prompt for `messages`: {"role": str, "content": str, list of text parts, or None, ...} each.

        Further arguments (tools, documents, enable_thinking, ...) go to the template as they are.

        Raises:
            InvalidRequest: the messages are malformed, the template refuses them, or rendering takes too much.
        """
        plain = checked_messages(messages)
        has_calls = any(message.get("tool_calls") for message in plain)
        as_text = has_calls and self._wants_text_arguments
        return self._rendered(plain, {**kwargs, "add_generation_prompt": add_generation_prompt}, as_text=as_text)

    def _rendered(self, messages: list[dict[str, Any]], given: dict[str, Any], *, as_text: bool) -> Rendered:
        guard = self._guard.choose(messages, given)  # before anything goes down a value: it may be nested too deeply
        plain = with_calls(messages, as_text=as_text, short_ids=self._wants_short_ids)
        variables = {
            "tools": None,
            "documents": None,
            **self._guard.protect(given, guard),
            **self._tokens,
            "messages": self._guard.protect(plain, guard),
        }
        try:
            with _budget(self._limits) as budget:
                return Rendered(_joined(self._template, variables, budget), guard)
        except TemplateRefusalError as error:
            raise InvalidRequest(str(error).replace(guard, ""), param="messages") from error
        except TemplateLimitError as error:
            message = f"rendering the chat template {error}"
            raise InvalidRequest(message, param="messages", code="limit_exceeded") from error
        # A template is a program: with messages it was not written for it may fail in any way.
        except Exception as error:
            reason = _told(error).replace(guard, "")
            raise InvalidRequest(f"the chat template failed on these messages: {reason}", param="messages") from error


@contextmanager
def _budget(limits: TemplateLimits) -> Iterator[Budget]:
    budget = Budget(limits)
    token = CURRENT_BUDGET.set(budget)
    try:
        yield budget
    finally:
        CURRENT_BUDGET.reset(token)


def _joined(template: Template, variables: dict[str, Any], budget: Budget) -> str:
    parts: list[str] = []
    num_chars = 0
    for part in template.generate(variables):
        parts.append(part)
        num_chars += len(part)
        budget.check_chars(num_chars)
    return "".join(parts)


def _told(error: Exception) -> str:
    """What went wrong, in one line a user can act on."""
    line = getattr(error, "lineno", None)
    where = f" (line {line})" if line else ""
    return f"{' '.join(str(error).split())[:500] or type(error).__name__}{where}"
