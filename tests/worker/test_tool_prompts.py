"""Tools, calls and further variables on their way into the prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.request import Request
from corral.tool_call import ToolChoice, ToolMode
from tests.support.tiny_vocab import CHATML
from tests.worker.test_prompting import chat, prompting, text_of

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
KNOWS = "{% for t in tools or [] %}{{ t.function.name }}<tool_call>{% endfor %}{{ messages[0].content }}"
# As Qwen 2.5 writes earlier calls, and as DeepSeek does, which wants their arguments as text.
CALLS = (
    "{{{{ tools }}}}{{% for m in messages %}}"
    "{{% for c in m.tool_calls or [] %}}{};{{% endfor %}}{{{{ m.name }}}}{{% endfor %}}"
)
QWEN = CALLS.format("{{ c.function.arguments | tojson }}")
DEEPSEEK = CALLS.format("{{ 'x' + c.function.arguments }}")
THINKS = "{{ x }}{{ messages[-1].content }}{% if enable_thinking %}<think>{% endif %}"


def called(arguments: Any) -> Request:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return Request(
        "r",
        messages=[
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "r"},
        ],
    )


def test_tools_reach_the_template_and_calls_are_looked_for() -> None:
    prompt = prompting(KNOWS).prepare(chat("a", tools=TOOLS))
    assert text_of(prompt) == "f<tool_call>a"
    assert prompt.tool_style is not None
    none = prompting(KNOWS).prepare(chat("a", tools=TOOLS, tool_choice=ToolChoice(ToolMode.NONE)))
    assert (text_of(none), none.tool_style) == ("f<tool_call>a", None)
    assert prompting(KNOWS).prepare(chat("a")).tool_style is None


def test_a_model_that_knows_no_tools() -> None:
    with pytest.raises(InvalidRequest, match=r'^"tiny" does not support tools$') as caught:
        prompting().prepare(chat("a", tools=TOOLS))
    assert caught.value.param == "tools"


@pytest.mark.parametrize("arguments", [{"a": 1}, '{"a": 1}'])
def test_arguments_of_earlier_calls_in_the_form_the_template_wants(arguments: Any) -> None:
    assert prompting(QWEN).prepare(called(arguments)).text == 'None{"a": 1};f'
    assert prompting(DEEPSEEK).prepare(called(arguments)).text == 'Nonex{"a": 1};f'


@pytest.mark.parametrize("arguments", ["{", "[]", [1], '"x"'])
def test_arguments_that_are_no_object(arguments: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\[1\]\.tool_calls\[0\]\.function\.arguments"):
        prompting(QWEN).prepare(called(arguments))


def test_only_variables_that_the_template_reads() -> None:
    one = prompting(THINKS)
    assert one.prepare(chat("a", template_kwargs={"x": "1"})).text == "1a<think>"
    off = one.prepare(chat("a", template_kwargs={"enable_thinking": False}))
    assert (off.text, off.markers) == ("a", None)
    for name in ("y", "messages", "tokenize", "tools", "add_generation_prompt", "bos_token", "chat_template"):
        with pytest.raises(InvalidRequest, match=name) as caught:
            one.prepare(chat("a", template_kwargs={name: 1}))
        assert caught.value.param == "chat_template_kwargs"


def test_variables_are_limited() -> None:
    with pytest.raises(InvalidRequest, match="characters"):
        prompting(THINKS).prepare(chat("a", template_kwargs={"x": "x" * (1 << 20)}))
    nested = json.loads("[" * 500 + "]" * 500)
    with pytest.raises(InvalidRequest, match="nested"):
        prompting(THINKS).prepare(chat("a", template_kwargs={"x": nested}))
    with pytest.raises(InvalidRequest, match="chat_template_kwargs"):
        prompting("{{ .Prompt }}").prepare(chat("a", template_kwargs={"x": 1}))


def test_a_final_message_stays_open() -> None:
    request = chat("a", "b\n", continue_final_message=True, add_generation_prompt=False)
    assert text_of(prompting(CHATML).prepare(request)).endswith("assistant\nb\n")
    go = "{{ range .Messages }}[{{ .Role }}]{{ .Content }}[end]{{ end }}"
    assert prompting(go).prepare(request).text == "[user]a[end][assistant]b\n"
    with pytest.raises(InvalidRequest, match="add_generation_prompt"):
        prompting(go).prepare(chat("a", add_generation_prompt=False))


def test_only_the_last_tokens_are_kept() -> None:
    whole = prompting().prepare(chat("a"))
    assert prompting().prepare(chat("a", truncate_prompt=3)).ids == whole.ids[-3:]
    assert len(prompting().prepare(Request("r", prompt="ab " * 2000, truncate_prompt=5)).ids) == 5
