"""Which style a model writes calls in: its template shows it, or its vocabulary."""

from __future__ import annotations

from corral.text.templates import PromptTemplate
from corral.text.tokenizer import Tokenizer
from corral.text.tools.marked_json import MarkedJSON
from corral.text.tools.style import ToolStyle

HERMES = MarkedJSON("hermes", "<tool_call>", "</tool_call>", others=("<tools>", "<tool>", "<function_call>"))


def style_of(template: PromptTemplate, tokenizer: Tokenizer) -> ToolStyle | None:
    """The style of a model with this template; None if the template does not know tools."""
    return HERMES if template.knows_tools else None
