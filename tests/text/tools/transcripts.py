"""What models write: (style, text, content, calls). Calls that were told and cut off are in CUT_OFF."""

from __future__ import annotations

from typing import Any

from corral.text.tools.deepseek import DeepSeek
from corral.text.tools.detect import (
    COMMAND,
    FUNCTION_GEMMA,
    GEMMA3,
    GEMMA4,
    GRANITE,
    HARMONY,
    HERMES,
    LLAMA3,
    PHI,
    PLAIN,
    QWEN_CODER,
)
from corral.text.tools.mistral import Mistral
from corral.text.tools.style import ToolStyle

MISTRAL, DEEPSEEK = Mistral(is_named=True), DeepSeek(is_fenced=True)

PARIS = ("get_weather", {"city": "Paris"})
ROME = ("get_weather", {"city": "Rome", "days": 3})
NOW: tuple[str, dict[str, Any]] = ("now", {})
HARD = ("search", {"query": 'a "b" \\ </tool_call> é\n🐎 {', "filters": {"x": [1, {"y": None}], "z": {}}})
HARD_JSON = '{"query": "a \\"b\\" \\\\ </tool_call> \\u00e9\\n🐎 {", "filters": {"x": [1, {"y": null}], "z": {}}}'
_DS_CALLS, _DS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_DS_CALL, _DS_SEP, _DS_END_CALL = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"

Transcript = tuple[ToolStyle, str, str, list[tuple[str, dict[str, Any]]]]


def json_call(name: str, arguments: str, key: str = "arguments") -> str:
    return f'{{"name": "{name}", "{key}": {arguments}}}'


PARIS_JSON = '{"city": "Paris"}'
ROME_JSON = '{"city": "Rome", "days": 3}'

TRANSCRIPTS: dict[str, Transcript] = {
    "hermes: none": (HERMES, "It is < 5 and a <tool is a tool.", "It is < 5 and a <tool is a tool.", []),
    "hermes: one": (HERMES, f"<tool_call>\n{json_call('get_weather', PARIS_JSON)}\n</tool_call>", "", [PARIS]),
    "hermes: parallel": (
        HERMES,
        f"<tool_call>\n{json_call('get_weather', PARIS_JSON)}\n</tool_call>\n"
        f"<tool_call>\n{json_call('get_weather', ROME_JSON)}\n</tool_call>\n",
        "",
        [PARIS, ROME],
    ),
    "hermes: text around": (
        HERMES,
        f"Let me look.\n\n<tool_call>{json_call('now', '{}')}</tool_call>\nDone.",
        "Let me look.\nDone.",
        [NOW],
    ),
    "hermes: hard": (HERMES, f"<tool_call>\n{json_call('search', HARD_JSON)}\n</tool_call>", "", [HARD]),
    "hermes: unknown": (
        HERMES,
        f"a <tool_call>\n{json_call('rm', '{}')}\n</tool_call>",
        'a <tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>',
        [],
    ),
    "hermes: broken": (
        HERMES,
        '<tool_call>\n{"name": "now", "arguments": {"a": tru}}\n</tool_call> b',
        '<tool_call>\n{"name": "now", "arguments": {"a": tru}}\n</tool_call> b',
        [],
    ),
    "hermes: no arguments": (HERMES, '<tool_call>{"name": "now"}</tool_call>', "", [NOW]),
    "hermes: null arguments": (HERMES, '<tool_call>{"name": "now", "arguments": null}', "", [NOW]),
    "hermes: arguments first": (
        HERMES,
        f'<tool_call>{{"arguments": {PARIS_JSON}, "name": "get_weather"}}</tool_call>',
        "",
        [PARIS],
    ),
    "hermes: arguments in a string": (
        HERMES,
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        "",
        [PARIS],
    ),
    "hermes: a bare line break in a string": (
        HERMES,
        '<tool_call>{"name": "get_weather", "arguments": {"city": "a\nb"}}</tool_call>',
        "",
        [("get_weather", {"city": "a\nb"})],
    ),
    "hermes: without markers": (HERMES, json_call("get_weather", PARIS_JSON), "", [PARIS]),
    "hermes: in a fence": (
        HERMES,
        f"Sure:\n```json\n{json_call('get_weather', PARIS_JSON)}\n```",
        "Sure:",
        [PARIS],
    ),
    "hermes: JSON that is no call": (HERMES, '{"city": "Paris"}', '{"city": "Paris"}', []),
    "hermes: a marker twice": (
        HERMES,
        f"<tool_call><tool_call>{json_call('now', '{}')}</tool_call>",
        "<tool_call>",
        [NOW],
    ),
    "hermes: half a surrogate pair": (
        HERMES,
        '<tool_call>{"name": "now", "arguments": {"a": "\\ud800"}}',
        '<tool_call>{"name": "now", "arguments": {"a": "\\ud800"}}',
        [],
    ),
    "qwen coder: one": (
        QWEN_CODER,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        "",
        [PARIS],
    ),
    "qwen coder: parallel, text before, types": (
        QWEN_CODER,
        "I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        "I look.",
        [ROME, NOW],
    ),
    "qwen coder: hard": (
        QWEN_CODER,
        '<tool_call>\n<function=search>\n<parameter=query>\na "b" \\ </tool_call> é\n🐎 {\n</parameter>\n'
        '<parameter=filters>\n{"x": [1, {"y": null}], "z": {}}\n</parameter>\n</function>\n</tool_call>',
        "",
        [HARD],
    ),
    "qwen coder: without the outer tag": (
        QWEN_CODER,
        "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        "",
        [PARIS],
    ),
    "qwen coder: unknown": (QWEN_CODER, "<function=rm>x</function>", "<function=rm>x</function>", []),
    "qwen coder: broken": (
        QWEN_CODER,
        "<tool_call>\n<function=now>\nwell</function>",
        "<tool_call>\n<function=now>\nwell</function>",
        [],
    ),
    "llama: one": (LLAMA3, json_call("get_weather", PARIS_JSON, "parameters"), "", [PARIS]),
    "llama: several": (
        LLAMA3,
        f"<|python_tag|>{json_call('get_weather', PARIS_JSON, 'parameters')}; "
        f"{json_call('get_weather', ROME_JSON, 'parameters')}",
        "",
        [PARIS, ROME],
    ),
    "llama: a type": (LLAMA3, '{"type": "function", "name": "now", "parameters": {}}', "", [NOW]),
    "llama: nested": (LLAMA3, '{"type": "function", "function": {"name": "now", "parameters": {}}}', "", [NOW]),
    "llama: hard": (LLAMA3, json_call("search", HARD_JSON, "parameters"), "", [HARD]),
    "llama: text": (LLAMA3, 'Use {"name": "now"}.', 'Use {"name": "now"}.', []),
    "llama: a semicolon and no call": (LLAMA3, '{"name": "now"}; and', "; and", [NOW]),
    "mistral: a list": (
        MISTRAL,
        f'[TOOL_CALLS] [{json_call("get_weather", PARIS_JSON)}, {{"name": "now", "arguments": {{}}, "id": "abc"}}]',
        "",
        [PARIS, NOW],
    ),
    "mistral: named": (
        MISTRAL,
        f"Well.[TOOL_CALLS]get_weather[ARGS]{PARIS_JSON}[TOOL_CALLS]now[CALL_ID]123456789[ARGS]{{}}",
        "Well.",
        [PARIS, NOW],
    ),
    "mistral: without a second marker": (MISTRAL, f"[TOOL_CALLS]search{HARD_JSON}", "", [HARD]),
    "mistral: unknown": (MISTRAL, "[TOOL_CALLS]rm[ARGS]{}", "[TOOL_CALLS]rm[ARGS]{}", []),
    "mistral: broken": (
        MISTRAL,
        f"[TOOL_CALLS] [{json_call('now', '{}')}, {{'name': 'now'}}]",
        ", {'name': 'now'}]",
        [NOW],
    ),
    "deepseek: R1": (
        DEEPSEEK,
        f"{_DS_CALLS}{_DS_CALL}function{_DS_SEP}get_weather\n```json\n{PARIS_JSON}\n```{_DS_END_CALL}\n"
        f"{_DS_CALL}function{_DS_SEP}search\n```json\n{HARD_JSON}\n```{_DS_END_CALL}{_DS_END}",
        "",
        [PARIS, HARD],
    ),
    "deepseek: V3.1": (
        DEEPSEEK,
        f"Hm. {_DS_CALLS}{_DS_CALL}get_weather{_DS_SEP}{PARIS_JSON}{_DS_END_CALL}"
        f"{_DS_CALL}now{_DS_SEP}{{}}{_DS_END_CALL}{_DS_END}",
        "Hm.",
        [PARIS, NOW],
    ),
    "deepseek: unknown": (
        DEEPSEEK,
        f"{_DS_CALLS}{_DS_CALL}rm{_DS_SEP}{{}}{_DS_END_CALL}",
        f"{_DS_CALLS}{_DS_CALL}rm{_DS_SEP}{{}}{_DS_END_CALL}",
        [],
    ),
    "granite: a list": (
        GRANITE,
        f"<|tool_call|>[{json_call('get_weather', PARIS_JSON)}, {json_call('search', HARD_JSON)}]",
        "",
        [PARIS, HARD],
    ),
    "granite: the other marker": (GRANITE, f"A <tool_call>[{json_call('now', '{}')}]", "A", [NOW]),
    "phi: a list": (PHI, f"<|tool_call|>[{json_call('now', '{}')}]<|/tool_call|>", "", [NOW]),
    "command: a list": (
        COMMAND,
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "now", "parameters": {}}\n]<|END_ACTION|>',
        "",
        [NOW],
    ),
    "gemma 3: python": (GEMMA3, "```tool_code\nprint(default_api.get_weather(city='Paris'))\n```", "", [PARIS]),
    "gemma 3: a list": (
        GEMMA3,
        'Yes. [x]\n```tool_code\nget_weather(city="Rome", days=3)\nnow()\n```',
        "Yes. [x]",
        [ROME, NOW],
    ),
    "gemma 3: python alone": (GEMMA3, '[get_weather(city="Paris"), now()]', "", [PARIS, NOW]),
    "gemma 3: JSON": (GEMMA3, f"```json\n{json_call('get_weather', PARIS_JSON, 'parameters')}\n```", "", [PARIS]),
    "gemma 3: a JSON list": (
        GEMMA3,
        f"[{json_call('get_weather', PARIS_JSON)}, {json_call('now', '{}')}]",
        "",
        [PARIS, NOW],
    ),
    "gemma 3: hard": (
        GEMMA3,
        "```tool_code\nsearch(query='a \"b\" \\\\ </tool_call> \\xe9\\n\\U0001f40e {', "
        "filters={'x': [1, {'y': None},], 'z': {}})\n```",
        "",
        [HARD],
    ),
    "gemma 3: code that runs nothing": (
        GEMMA3,
        "```tool_code\n__import__('os').system('true')\n```",
        "```tool_code\n__import__('os').system('true')\n```",
        [],
    ),
    "functiongemma: one": (
        FUNCTION_GEMMA,
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>",
        "",
        [PARIS],
    ),
    "gemma 4: parallel": (
        GEMMA4,
        'Ok<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,days:3}<tool_call|><|tool_call>call:now{}<tool_call|>',
        "Ok",
        [ROME, NOW],
    ),
    "gemma 4: hard": (
        GEMMA4,
        '<|tool_call>call:search{query:<|"|>a "b" \\ </tool_call> é\n🐎 {<|"|>,'
        "filters:{x:[1,{y:null}],z:{}}}<tool_call|>",
        "",
        [HARD],
    ),
    "gemma 4: unknown": (GEMMA4, "<|tool_call>call:rm{}<tool_call|>", "<|tool_call>call:rm{}<tool_call|>", []),
    "gemma 4: broken": (GEMMA4, "<|tool_call>call:now{a:b}<tool_call|>", "<|tool_call>call:now{a:b}<tool_call|>", []),
    "harmony: one": (
        HARMONY,
        f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{PARIS_JSON}<|call|>",
        "",
        [PARIS],
    ),
    "harmony: the recipient in the role": (
        HARMONY,
        f"I look.<|start|>assistant to=functions.search<|channel|>commentary json<|message|>{HARD_JSON}",
        "I look.",
        [HARD],
    ),
    "harmony: unknown": (
        HARMONY,
        "<|channel|>commentary to=functions.rm<|message|>{}<|call|>",
        "<|channel|>commentary to=functions.rm<|message|>{}<|call|>",
        [],
    ),
    "json: one": (PLAIN, json_call("get_weather", PARIS_JSON), "", [PARIS]),
    "json: a list": (PLAIN, f"[{json_call('now', '{}')},\n{json_call('get_weather', ROME_JSON)}]", "", [NOW, ROME]),
}

# Texts that end within a call: (style, text, content, name, arguments so far); an empty name is no call yet.
CUT_OFF: dict[str, tuple[ToolStyle, str, str, str, str]] = {
    "hermes": (HERMES, 'A <tool_call>\n{"name": "get_weather", "arguments": {"ci', "A", "get_weather", '{"ci'),
    "hermes: before the name": (HERMES, 'A <tool_call>\n{"name": "get_w', 'A <tool_call>\n{"name": "get_w', "", ""),
    "hermes: after the arguments": (HERMES, '<tool_call>{"name": "now", "arguments": {}', "", "now", "{}"),
    "qwen coder": (
        QWEN_CODER,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nPa",
        "",
        "get_weather",
        "{",
    ),
    "llama": (LLAMA3, '{"name": "now", "parameters": {"a": [', "", "now", '{"a": ['),
    "mistral": (MISTRAL, '[TOOL_CALLS]now[ARGS]{"a"', "", "now", '{"a"'),
    "deepseek": (DEEPSEEK, f"{_DS_CALLS}{_DS_CALL}now{_DS_SEP}{{", "", "now", "{"),
    "granite": (GRANITE, '<|tool_call|>[{"name": "now", "arguments": {', "", "now", "{"),
    "gemma 3": (GEMMA3, "```tool_code\nget_weather(city='Pa", "", "get_weather", '{"city": '),
    "gemma 4": (GEMMA4, '<|tool_call>call:get_weather{city:<|"|>Pa', "", "get_weather", '{"city": '),
    "harmony": (HARMONY, '<|channel|>commentary to=functions.now<|message|>{"', "", "now", '{"'),
    "json": (PLAIN, '{"name": "now", "arguments": {"x": 1', "", "now", '{"x": 1'),
}
