"""A chat template in Go's text/template, as Ollama's Modelfiles and registry have it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from corral.errors import InvalidRequest, UnsupportedModel
from corral.text.final_message import cut_at_mark, with_final_mark
from corral.text.go_template.data import collate, message_of, tools_of
from corral.text.go_template.evaluator import Evaluator
from corral.text.go_template.functions import FUNCTIONS, SHORT_CIRCUIT
from corral.text.go_template.nodes import GoTemplateError, Node
from corral.text.go_template.parser import parse
from corral.text.go_template.tree import RESPONSE, cut_after_response, has_text, names_of
from corral.text.messages import checked_messages
from corral.text.rendered import Rendered
from corral.text.template_guard import TemplateGuard
from corral.text.template_kwargs import check_kwargs
from corral.text.template_limits import Budget, TemplateLimitError, TemplateLimits

_NAMES = frozenset((*FUNCTIONS, *SHORT_CIRCUIT))


class GoTemplate:
    """A compiled template; safe to use from several threads.

    Args:
        source: its text.
        control_texts: Tokenizer.control_texts, which users' own text must not turn into.
        limits: what one rendering may cost.

    Attributes:
        is_fallback, stop_texts: as ChatTemplate has them; here there is nothing to fall back from.
        knows_thinking: it treats thinking in some way.
        knows_tools: it writes the tools that a request offers.
        knows_suffix: it can ask for what stands between a prompt and a suffix.

    Raises:
        UnsupportedModel: "template line N: ...": it uses what Corral does not know, or is too long.
    """

    is_fallback = False
    stop_texts: tuple[str, ...] = ()

    def __init__(
        self, source: str, *, control_texts: Collection[str] = (), limits: TemplateLimits | None = None
    ) -> None:
        self.source = source
        self._limits = limits or TemplateLimits()
        if len(source) > self._limits.max_source_chars:
            raise UnsupportedModel(f"the template has {len(source)} characters; {self._limits.max_source_chars} may be")
        try:
            tree = parse(source, _NAMES)
        except GoTemplateError as error:
            raise UnsupportedModel(str(error)) from error
        names = names_of(tree)
        self._takes_messages = "Messages" in names
        self._body = tree.body
        if not names & {"Messages", "Response"}:
            self._body = (*tree.body, RESPONSE)
        self._last_turn = cut_after_response(self._body)
        self._defined = tree.defined
        self._guard = TemplateGuard(control_texts, source)
        self.knows_thinking = bool(names & {"Think", "ThinkLevel", "Thinking"}) or has_text(tree, "<think>")
        self.knows_tools = "Tools" in names
        self.knows_suffix = "Suffix" in names

    def thinking_of(self, kwargs: Mapping[str, Any]) -> bool | None:
        """As ChatTemplate.thinking_of; there are no such variables here."""
        return None

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
        """The prompt for `messages`, in which the answer comes next.

        Args:
            messages: {"role", "content", ...} each; "thinking", "tool_calls", "tool_name" and "images" are known.
            think: on, off, or how hard; None is on, where the template knows it.
            tools: what the model may call, as OpenAI's and Ollama's requests have it.
            add_generation_prompt: always, as these templates know no other way.
            continue_final_message: end within the last message, whose turn stays open.
            kwargs: further variables; there are none.

        Raises:
            InvalidRequest: the messages are malformed, or the template fails on them or takes too much.
        """
        if kwargs:
            check_kwargs(kwargs, ())
        if continue_final_message:
            marked, mark = with_final_mark(messages, self._guard, tools)
            return cut_at_mark(self.render_chat(marked, think=think, tools=tools), mark)
        if not add_generation_prompt:
            raise InvalidRequest(
                "add_generation_prompt is false; a template in Ollama's language always adds one",
                param="add_generation_prompt",
            )
        plain = checked_messages(messages)
        guard = self._guard.choose(plain, tools)
        budget = Budget(self._limits)
        protected: list[dict[str, Any]] = self._guard.protect(plain, guard)
        system, collated = collate(protected)
        thinking = self._thinking(think)
        if self._takes_messages:
            structs = [message_of(message) for message in collated]
            offered = tools_of(self._guard.protect(tools, guard))
            data = {"System": system, "Messages": structs, "Tools": offered, "Response": "", **thinking}
            return Rendered(self._run(self._body, data, guard, budget), guard)
        return Rendered(self._turn_by_turn(collated, thinking, guard, budget), guard)

    def render_suffix(self, prompt: str, suffix: str) -> Rendered:
        """The prompt for what stands between `prompt` and `suffix`. Raises InvalidRequest as render_chat."""
        guard = self._guard.choose(prompt, suffix)
        texts = {"Prompt": self._guard.protect(prompt, guard), "Suffix": self._guard.protect(suffix, guard)}
        data = {**texts, "Response": "", **self._thinking(None)}
        return Rendered(self._run(self._body, data, guard, Budget(self._limits)), guard)

    def _thinking(self, think: bool | str | None) -> dict[str, Any]:
        if think is None and self.knows_thinking:
            think = True
        level = think if isinstance(think, str) else ""
        return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}

    def _turn_by_turn(
        self, messages: list[dict[str, Any]], thinking: dict[str, Any], guard: str, budget: Budget
    ) -> str:
        """The legacy style: the template is one turn of system, prompt and response, and the last one is open."""
        parts: list[str] = []
        turn = {"System": "", "Prompt": "", "Response": ""}
        for message in messages:
            role = message["role"]
            is_full = turn["Response"] if role == "user" else turn["Prompt"] or turn["Response"]
            if role in ("system", "user") and is_full:
                parts.append(self._run(self._body, {**turn, **thinking}, guard, budget))
                budget.check_chars(sum(map(len, parts)))
                turn = {"System": "", "Prompt": "", "Response": ""}
            field = {"system": "System", "user": "Prompt", "assistant": "Response"}.get(role)
            if field is not None:
                turn[field] = message["content"]
        parts.append(self._run(self._last_turn, {**turn, **thinking}, guard, budget))
        return "".join(parts)

    def _run(self, body: tuple[Node, ...], data: dict[str, Any], guard: str, budget: Budget) -> str:
        try:
            return Evaluator(self._defined, budget).run(body, data)
        except TemplateLimitError as error:
            message = f"rendering the chat template {error}"
            raise InvalidRequest(message, param="messages", code="limit_exceeded") from error
        except (GoTemplateError, RecursionError) as error:
            reason = str(error).replace(guard, "")[:500]
            raise InvalidRequest(f"the chat template failed on these messages: {reason}", param="messages") from error
