"""Messages -> prompt text, by the chat template in the model's file."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jinja2 import Template

from corral.errors import InvalidRequest, UnsupportedModel
from corral.text.template_guard import TemplateGuard
from corral.text.template_limits import CURRENT_BUDGET, Budget, TemplateLimitError, TemplateLimits
from corral.text.template_sandbox import ChatTemplateEnvironment, TemplateRefusalError

logger = logging.getLogger(__name__)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt, and the character that breaks up control tokens in what users wrote; for Tokenizer.encode_chat."""

    text: str
    guard: str


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
        self._limits = limits or TemplateLimits()
        self._tokens = {"bos_token": bos_token or "", "eos_token": eos_token or ""}
        self._guard = TemplateGuard(control_texts, source)
        self._template = self._compile(source)

    def _compile(self, source: str) -> Template:
        if len(source) > self._limits.max_source_chars:
            raise UnsupportedModel(
                f"the chat template has {len(source)} characters; {self._limits.max_source_chars} are allowed"
            )
        try:
            with _budget(self._limits):
                return ChatTemplateEnvironment().from_string(source)
        # Constants are worked out while compiling, so anything may go wrong there.
        except Exception as error:
            raise UnsupportedModel(f"the chat template does not compile: {_told(error)}") from error

    def render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool = True, **kwargs: Any) -> Rendered:
        """The prompt for `messages`: {"role": str, "content": str, list of text parts, or None, ...} each.

        Further arguments (tools, documents, enable_thinking, ...) go to the template as they are.

        Raises:
            InvalidRequest: the messages are malformed, the template refuses them, or rendering takes too much.
        """
        plain = [_with_plain_content(index, message) for index, message in enumerate(_checked_list(messages))]
        guard = self._guard.choose(plain, kwargs)
        variables = {
            "tools": None,
            "documents": None,
            **self._guard.protect(kwargs, guard),
            **self._tokens,
            "messages": self._guard.protect(plain, guard),
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            with _budget(self._limits) as budget:
                return Rendered(_joined(self._template, variables, budget), guard)
        except TemplateRefusalError as error:
            raise InvalidRequest(str(error).replace(guard, ""), param="messages") from error
        except TemplateLimitError as error:
            raise InvalidRequest(f"rendering the chat template {error}", param="messages") from error
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


def _checked_list(messages: object) -> list[Any]:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages must be a list with at least one message", param="messages")
    return messages


def _with_plain_content(index: int, message: Any) -> dict[str, Any]:
    """The message with its text parts joined by line breaks, as templates expect one text."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidRequest(f"messages[{index}] must be an object with a role", param="messages")
    content = message.get("content")
    if not isinstance(content, list):
        if content is not None and not isinstance(content, str):
            raise InvalidRequest(f"messages[{index}].content must be a text or a list of parts", param="messages")
        return message
    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind != "text" or not isinstance(text, str):
            raise InvalidRequest(
                f"messages[{index}].content has a {kind!r:.40} part; only text is known", param="messages"
            )
        texts.append(text)
    return {**message, "content": "\n".join(texts)}


def _told(error: Exception) -> str:
    """What went wrong, in one line a user can act on."""
    line = getattr(error, "lineno", None)
    where = f" (line {line})" if line else ""
    return f"{' '.join(str(error).split())[:500] or type(error).__name__}{where}"
