from __future__ import annotations

import pytest

from corral.text.reasoning import markers_of
from corral.text.templates import template_for
from corral.text.tokenizer import Tokenizer
from corral.text.tools.detect import style_of
from tests.support.tiny_vocab import bpe_metadata

TOOLS = "{% if tools %}{{ tools }}{% endif %}"


def tokenizer(*control: str) -> Tokenizer:
    metadata = bpe_metadata()
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], *control]
    metadata["tokenizer.ggml.token_type"] = [*metadata["tokenizer.ggml.token_type"], *([4] * len(control))]
    return Tokenizer.from_metadata(metadata)


@pytest.mark.parametrize(
    ("source", "vocabulary", "style"),
    [
        (TOOLS + "<tool_call>", (), "hermes"),
        (TOOLS + "<tool_call><function=x><parameter=y>", (), "qwen3_coder"),
        (TOOLS + "<|start_header_id|>", (), "llama3"),
        (TOOLS + "[TOOL_CALLS]", (), "mistral"),
        (TOOLS + "<｜tool▁calls▁begin｜>", (), "deepseek"),
        (TOOLS + "<|tool_call|>", (), "granite"),
        (TOOLS + "<|tool_call|><|/tool_call|>", (), "phi4"),
        (TOOLS + "<start_of_turn>", (), "gemma"),
        (TOOLS + "<start_function_call>", (), "functiongemma"),
        (TOOLS + "<|tool_call>", (), "gemma4"),
        (TOOLS + "<|start|><|channel|><|message|>", (), "harmony"),
        (TOOLS + "<|START_ACTION|>", (), "command"),
        (TOOLS, (), "json"),
        (TOOLS, ("<tool_call>",), "hermes"),
        (TOOLS, ("[TOOL_CALLS]",), "mistral"),
        ("{{ .Tools }}{{ range .ToolCalls }}<call>{{ .Function.Name }}</call>{{ end }}", (), "json"),
        ("{{ messages }}<tool_call>", (), None),
        ("{{ .Prompt }}<tool_call>", ("<tool_call>",), None),
    ],
)
def test_the_style_shows_in_template_or_vocabulary(source: str, vocabulary: tuple[str, ...], style: str | None) -> None:
    own = tokenizer(*vocabulary)
    found = style_of(template_for(own, source), own)
    assert (None if found is None else found.name) == style


def test_a_go_templates_own_marker() -> None:
    own = tokenizer()
    found = style_of(template_for(own, "{{ .Tools }}{{ range .ToolCalls }}\n<call>{{ .Function.Name }}{{ end }}"), own)
    assert found is not None
    assert found.markers == ("<call>", "</call>")


@pytest.mark.parametrize(
    ("source", "opening", "closing"),
    [
        ("<|start|><|channel|><|message|>", "<|channel|>analysis<|message|>", "<|end|>"),
        ("<|channel>thought", "<|channel>thought", "<channel|>"),
        ("Here is my thought process:", "Here is my thought process:", "Here is my response:"),
        ("<think></think><response></response>", "<think>", "</think>"),
    ],
)
def test_markers_of_thinking(source: str, opening: str, closing: str) -> None:
    found = markers_of(source, tokenizer())
    assert found is not None
    assert (found.opening, found.closing) == (opening, closing)
    assert found.answer == (("<response>", "</response>") if "<response>" in source else found.answer)
