"""Which style a model writes calls in: its template shows it, or its vocabulary."""

from __future__ import annotations

import re

from corral.text.templates import PromptTemplate
from corral.text.tokenizer import Tokenizer
from corral.text.tools.deepseek import DeepSeek
from corral.text.tools.gemma import GemmaCall, GemmaPrompted
from corral.text.tools.harmony import Harmony
from corral.text.tools.marked_json import MarkedJSON
from corral.text.tools.mistral import Mistral
from corral.text.tools.qwen_coder import QwenCoder
from corral.text.tools.style import ToolStyle

HERMES = MarkedJSON("hermes", "<tool_call>", "</tool_call>", others=("<tools>", "<tool>", "<function_call>"))
LLAMA3 = MarkedJSON("llama3", "<|python_tag|>", keys=("name", "parameters"), separator=";", is_marked=False)
GRANITE = MarkedJSON("granite", "<|tool_call|>", others=("<tool_call>",), is_list=True)
PHI = MarkedJSON("phi4", "<|tool_call|>", "<|/tool_call|>", is_list=True)
COMMAND = MarkedJSON("command", "<|START_ACTION|>", "<|END_ACTION|>", is_list=True, keys=("tool_name", "parameters"))
FUNCTION_GEMMA = GemmaCall("functiongemma", "<start_function_call>", "<end_function_call>", "<escape>")
GEMMA4 = GemmaCall("gemma4", "<|tool_call>", "<tool_call|>", '<|"|>')
GEMMA3 = GemmaPrompted()
QWEN_CODER = QwenCoder()
HARMONY = Harmony()
PLAIN = MarkedJSON("json")

# What a Go template writes before the first action within the calls of a message.
_BEFORE_CALLS = re.compile(r"\{\{-?\s*range\s[^{}]{0,80}\.ToolCalls\s*-?\}\}([^{}]{0,80})")
_MARKER = re.compile(r"[<\[][^\s<>\[\]{}\"]{1,40}[>\]]")


def style_of(template: PromptTemplate, tokenizer: Tokenizer) -> ToolStyle | None:
    """The style of a model with this template; None if the template does not know tools.

    The template comes first, as it may not be the model's own; where it shows no markers the vocabulary may have them.
    """
    if not template.knows_tools:
        return None
    source = template.source
    if (style := _shown_in(source)) is not None:
        return style
    for marker, known in (
        ("[TOOL_CALLS]", Mistral(is_named=False)),
        ("<start_function_call>", FUNCTION_GEMMA),
        ("<|tool_call>", GEMMA4),
        ("<|tool_call|>", GRANITE),
        ("<tool_call>", HERMES),
        ("<|python_tag|>", LLAMA3),
    ):
        if len(tokenizer.encode(marker, add_special=False, parse_special=True)) == 1:
            return known
    return GEMMA3 if "<start_of_turn>" in source else PLAIN


def _shown_in(source: str) -> ToolStyle | None:
    """The style whose markers a template has; markers that others share come last."""
    if "<|channel|>" in source and "<|message|>" in source:
        return HARMONY
    if "<｜tool▁call▁begin｜>" in source or "<｜tool▁calls▁begin｜>" in source:
        return DeepSeek(is_fenced="```json" in source)
    if "[TOOL_CALLS]" in source:
        return Mistral(is_named="[ARGS]" in source)
    if "<function=" in source and "<parameter=" in source:
        return QWEN_CODER
    if "<start_function_call>" in source:
        return FUNCTION_GEMMA
    if "<|tool_call>" in source:
        return GEMMA4
    if "<|START_ACTION|>" in source:
        return COMMAND
    if "<|tool_call|>" in source:
        return PHI if "<|/tool_call|>" in source else GRANITE
    if "<tool_call>" in source:
        return HERMES
    if "<|python_tag|>" in source or "<|start_header_id|>" in source:
        return LLAMA3
    if (before := _BEFORE_CALLS.search(source)) is not None and (marker := _MARKER.search(before[1])) is not None:
        opening = marker[0]
        return MarkedJSON("json", opening, f"{opening[0]}/{opening[1:]}")
    return None
