"""One face for chat templates, whichever language they are written in."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from corral.text.rendered import Rendered
    from corral.text.template_limits import TemplateLimits
    from corral.text.tokenizer import Tokenizer

# What begins an action of Go's that Jinja could not read: a field, a variable with a dollar, or a block's keyword.
_GO_ACTION = re.compile(
    r"""\{\{(?:-\s)?\s*(?:
        [.$] | /\* | (?:if|else|end|with|range|define|template|block|break|continue)\b
      | \(\s*\w*\s*[.$] | [^\W\d]\w*\s+[.$"`]
    )""",
    re.VERBOSE,
)
_JINJA = re.compile(r"\{%|\{#|\{\{")


class PromptTemplate(Protocol):
    """What ChatTemplate (Jinja) and GoTemplate have in common."""

    source: str
    is_fallback: bool
    stop_texts: tuple[str, ...]

    @property
    def knows_thinking(self) -> bool: ...
    @property
    def knows_tools(self) -> bool: ...
    @property
    def knows_suffix(self) -> bool: ...
    def thinking_of(self, kwargs: Mapping[str, Any]) -> bool | None: ...
    def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        think: bool | str | None = None,
        tools: list[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Rendered: ...
    def render_suffix(self, prompt: str, suffix: str) -> Rendered: ...


def is_go_template(source: str) -> bool:
    """Whether a template is Go's. A text without any action is: Ollama's templates may be as plain as that."""
    return _GO_ACTION.search(source) is not None or _JINJA.search(source) is None


def make_template(
    source: str | None,
    *,
    bos_token: str | None = None,
    eos_token: str | None = None,
    control_texts: Collection[str] = (),
    limits: TemplateLimits | None = None,
) -> PromptTemplate:
    """The template of a model's file or of a Modelfile; None falls back to ChatML, with a warning.

    Raises:
        UnsupportedModel: it cannot be compiled; says why, with the line.
    """
    if source is not None and is_go_template(source):
        from corral.text.go_template import GoTemplate

        return GoTemplate(source, control_texts=control_texts, limits=limits)
    from corral.text.chat_template import ChatTemplate

    return ChatTemplate(source, bos_token=bos_token, eos_token=eos_token, control_texts=control_texts, limits=limits)


def template_for(tokenizer: Tokenizer, source: str | None) -> PromptTemplate:
    """make_template with what a model's own tokenizer says."""

    def text_of(token_id: int | None) -> str:
        return "" if token_id is None else tokenizer.token_bytes(token_id).decode(errors="replace")

    return make_template(
        source,
        bos_token=text_of(tokenizer.bos_id),
        eos_token=text_of(tokenizer.eos_id),
        control_texts=tokenizer.control_texts,
    )
