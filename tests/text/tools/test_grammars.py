"""What a style's grammar lets a model write is what the style reads."""

from __future__ import annotations

import json
import random

import jsonschema
import llguidance
import pytest

from corral.text.tools.offered import OfferedTools
from corral.text.tools.style import ToolStyle
from corral.tool_call import ToolChoice
from tests.text.tools.support import TEXT, TOOLS, parse, tool
from tests.text.tools.transcripts import TRANSCRIPTS

STYLES: dict[str, ToolStyle] = {transcript[0].name: transcript[0] for transcript in TRANSCRIPTS.values()}
SCHEMAS = {each["function"]["name"]: each["function"]["parameters"] for each in TOOLS}
EOS = 256
LIKELY = set(b'{}[]":,</>=|_ -0123456789abcdefghijklmnopqrstuvwxyz\n`();')


def byte_tokenizer() -> llguidance.LLTokenizer:
    """A token for each byte, and one for the end."""

    class Bytes:
        eos_token_id = EOS
        bos_token_id = None
        tokens = [*(bytes([byte]) for byte in range(256)), b"<end>"]  # noqa: RUF012
        special_token_ids = [EOS]  # noqa: RUF012

        def __call__(self, text: str) -> list[int]:
            return list(text.encode())

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))


TOKENIZER = byte_tokenizer()


def allowed(matcher: llguidance.LLMatcher) -> list[int]:
    mask = matcher.compute_bitmask()
    return [i for i in range(257) if mask[i >> 3] >> (i & 7) & 1]


def generate(grammar: str, seed: int, most: int = 1500) -> str | None:
    """A text that the grammar allows, by chance; None if it has not come to an end."""
    chance = random.Random(seed)
    matcher = llguidance.LLMatcher(TOKENIZER, llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar}"
    written = bytearray()
    while len(written) < most:
        choices = allowed(matcher)
        assert choices, bytes(written)
        ends = [i for i in choices if i in (EOS, *b'"}]<>/')]
        likely = [i for i in choices if i in LIKELY] or choices
        token = chance.choice(ends) if ends and chance.random() < 0.5 else chance.choice(likely)
        if token == EOS:
            return written.decode("utf-8", "replace")
        assert matcher.consume_token(token)
        written.append(token)
        if matcher.is_stopped():
            return written.decode("utf-8", "replace")
    return None


def terminal(marker: str) -> str:
    return json.dumps(marker, ensure_ascii=False)


@pytest.mark.parametrize("is_parallel", [True, False])
@pytest.mark.parametrize("name", STYLES)
def test_what_the_grammar_allows_is_read_as_calls(name: str, is_parallel: bool) -> None:
    style = STYLES[name]
    choice = ToolChoice(is_parallel=is_parallel)
    grammar = style.call_grammar(OfferedTools(TOOLS, choice), terminal)
    texts = [text for seed in range(6) if (text := generate(grammar, seed)) is not None]
    assert texts
    for text in texts:
        answer = parse(style, [text], choice=choice)
        assert answer.content == "", text
        assert answer.calls, text
        assert all(whole for _, _, whole in answer.calls.values()), text
        assert is_parallel or len(answer.calls) == 1
        for called, arguments in answer.whole_calls:
            jsonschema.validate(arguments, SCHEMAS[called])


@pytest.mark.parametrize("name", STYLES)
def test_a_named_choice_is_the_only_call(name: str) -> None:
    style = STYLES[name]
    choice = ToolChoice(names=("now",), is_parallel=False)
    text = generate(style.call_grammar(OfferedTools(TOOLS, choice), terminal), 1)
    assert text is not None
    assert parse(style, [text]).whole_calls == [("now", {})]


def test_a_schema_is_held_to() -> None:
    enum = tool("pick", ("x",), x={"enum": [1, "b"]}, y=TEXT)
    grammar = STYLES["hermes"].call_grammar(OfferedTools([enum], ToolChoice(is_parallel=False)), terminal)
    matcher = llguidance.LLMatcher(TOKENIZER, llguidance.LLMatcher.grammar_from_lark(grammar))
    assert matcher.consume_tokens(list(b'<tool_call>\n{"name": "pick", "arguments": {"x":'))
    assert set(allowed(matcher)) - set(b" \n\t\r") == set(b'1"')
