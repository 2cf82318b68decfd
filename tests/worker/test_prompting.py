from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from corral.errors import ContextLengthExceeded, InvalidRequest
from corral.request import Overflow, Request
from corral.sampling_params import SamplingParams
from corral.text.templates import template_for
from corral.text.tokenizer import Tokenizer
from corral.worker.overflow import cut_ids
from corral.worker.prompting import Prompt, Prompting
from tests.support.tiny_vocab import CHATML, bpe_metadata

THINKS = "{{ range .Messages }}{{ .Content }}{{ end }}{{ if .Think }}<think>{{ end }}"
FILLS = "{{ .Prompt }}<gap>{{ .Suffix }}"


@cache
def tokenizer(*control: str) -> Tokenizer:
    metadata = bpe_metadata()
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], *control]
    metadata["tokenizer.ggml.token_type"] = [*metadata["tokenizer.ggml.token_type"], *([3] * len(control))]
    return Tokenizer.from_metadata(metadata)


def prompting(source: str = CHATML, limit: int = 256, control: tuple[str, ...] = ()) -> Prompting:
    own = tokenizer(*control)
    return Prompting(own, template_for(own, source), limit, "tiny")


def chat(*contents: str, system: str | None = None, **fields: Any) -> Request:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return Request("r", messages=messages, **fields)


def text_of(prompt: Prompt, *control: str) -> str:
    own = tokenizer(*control)
    return b"".join(own.token_bytes(i) for i in prompt.ids).decode()


def drops(request: Request, limit: int) -> Prompt:
    return prompting(limit=limit).prepare(request)


def test_a_requests_own_template_is_used_in_either_language() -> None:
    one = prompting()
    assert text_of(one.prepare(chat("a", template="<{{ .Prompt }}>"))) == "<a>"
    assert text_of(one.prepare(chat("b", template="<{{ .Prompt }}>"))) == "<b>"
    assert text_of(one.prepare(chat("c", template="[{{ messages[0]['content'] }}]"))) == "[c]"
    assert text_of(one.prepare(chat("d"))).startswith("<|im_start|>user\nd")
    with pytest.raises(InvalidRequest, match="template line 1"):
        one.prepare(chat("e", template="{{ if }}"))


def test_compiled_templates_do_not_pile_up() -> None:
    one = prompting()
    for number in range(40):
        assert text_of(one.prepare(chat("a", template=f"{number}{{{{ .Prompt }}}}"))) == f"{number}a"
    assert len(one._others) <= 16


def test_thinking_is_taken_apart_where_the_template_knows_it() -> None:
    one = prompting(THINKS)
    prompt = one.prepare(chat("a"))
    assert prompt.markers is not None
    assert prompt.is_thinking
    assert text_of(prompt) == "a<think>"
    off = one.prepare(chat("a", think=False))
    assert (off.markers, off.is_thinking, text_of(off)) == (None, False, "a")
    plain = prompting().prepare(chat("a"))
    assert plain.markers is None
    assert prompting().prepare(chat("a", think=False)).markers is None


@pytest.mark.parametrize(("model", "name"), [("", "tiny"), ("given:latest", "given:latest")])
def test_a_model_that_does_not_think(model: str, name: str) -> None:
    for think in (True, "high"):
        with pytest.raises(InvalidRequest, match=f'^"{name}" does not support thinking$') as caught:
            prompting().prepare(chat("a", model=model, think=think))
        assert caught.value.param == "think"


def test_a_suffix_by_the_template() -> None:
    request = Request("r", prompt="a", suffix="b")
    assert text_of(prompting(FILLS).prepare(request)) == "a<gap>b"
    assert text_of(prompting(FILLS).prepare(chat("x", "y", "a", suffix="b"))) == "a<gap>b"
    with pytest.raises(InvalidRequest, match=r'^"tiny" does not support insert$'):
        prompting().prepare(request)


def test_a_suffix_by_the_vocabulary() -> None:
    marks = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
    prompt = prompting(control=marks).prepare(Request("r", prompt="a<|fim_middle|>", suffix="b"))
    assert text_of(prompt, *marks) == "<|fim_prefix|>a<|fim_middle|><|fim_suffix|>b<|fim_middle|>"
    middle = tokenizer(*marks).encode("<|fim_middle|>", add_special=False, parse_special=True)
    assert prompt.ids.count(middle[0]) == 1  # the user's own is text


def test_oldest_messages_go_first_and_the_system_message_stays() -> None:
    contents = [f"the horses and the shepherd, number {i}" for i in range(9)]
    prompt = drops(chat(*contents, system="Be brief", overflow=Overflow.DROP_OLDEST), 120)
    text = text_of(prompt)
    assert len(prompt.ids) < 120
    assert "Be brief" in text
    assert "number 8" in text
    kept = [i for i in range(9) if f"number {i}" in text]
    assert kept == list(range(prompt.dropped_messages, 9))
    assert prompt.dropped_messages > 0
    assert prompt.dropped_tokens > 0
    # One more would not have fitted.
    again = chat(*contents[prompt.dropped_messages - 1 :], system="Be brief")
    if (prompt.dropped_messages - 1) % 2 == 0:
        with pytest.raises(ContextLengthExceeded):
            prompting(limit=120).prepare(again)


def test_what_fits_stays_whole() -> None:
    prompt = drops(chat("a", "b", "c", overflow=Overflow.DROP_OLDEST), 120)
    assert (prompt.dropped_messages, prompt.dropped_tokens) == (0, 0)
    assert prompt.sampling.max_tokens is None


@pytest.mark.parametrize("size", [300, 3_000_000])
def test_a_last_message_too_long_is_cut_in_its_middle(size: int) -> None:
    prompt = drops(chat("x", "y", "horses " * size, overflow=Overflow.DROP_OLDEST), 100)
    assert prompt.dropped_messages == 2
    assert len(prompt.ids) == 52  # 4 at the beginning, and half of the rest
    assert prompt.dropped_tokens > 100
    assert text_of(prompt).endswith("<|im_start|>assistant\n")


def test_a_template_that_wants_a_user_first_gets_one() -> None:
    strict = (
        "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    contents = ["the horses ran " * 4] * 7
    prompt = prompting(strict, limit=100).prepare(chat(*contents, overflow=Overflow.DROP_OLDEST))
    assert prompt.dropped_messages % 2 == 0
    assert len(prompt.ids) < 100
    bad = Request("r", messages=[{"role": "assistant", "content": "x"}], overflow=Overflow.DROP_OLDEST)
    with pytest.raises(InvalidRequest, match="user first"):
        prompting(strict).prepare(bad)


@pytest.mark.parametrize("prompt", ["horses " * 400, list(range(10, 200)) * 3, "horses " * 2_000_000])
def test_raw_prompts_lose_their_middle(prompt: Any) -> None:
    made = drops(Request("r", prompt=prompt, overflow=Overflow.DROP_OLDEST), 100)
    assert len(made.ids) == 52
    assert made.dropped_tokens > 300
    if isinstance(prompt, list):
        assert made.ids == prompt[:4] + prompt[-48:]


def test_cutting_leaves_room_for_an_answer_whatever_the_limit() -> None:
    for limit in range(2, 40):
        assert 0 < len(cut_ids(list(range(100)), limit)) < limit
    assert cut_ids([1, 2, 3], 4) == [1, 2, 3]


def test_the_context_of_a_request_bounds_prompt_and_answer() -> None:
    one = prompting()
    prompt = one.prepare(Request("r", prompt=[5] * 20, max_context=32))
    assert prompt.sampling.max_tokens == 12
    with pytest.raises(ContextLengthExceeded, match="holds 32 tokens"):
        one.prepare(Request("r", prompt=[5] * 32, max_context=32))
    asked = SamplingParams(max_tokens=20, min_tokens=15)
    with pytest.raises(ContextLengthExceeded, match="40 were asked for"):
        one.prepare(Request("r", prompt=[5] * 20, max_context=32, sampling=asked))
    lenient = Request("r", prompt=[5] * 20, max_context=32, sampling=asked, overflow=Overflow.DROP_OLDEST)
    assert one.prepare(lenient).sampling.max_tokens == 12
    with pytest.raises(InvalidRequest, match="must hold 2"):
        one.prepare(Request("r", prompt=[5], max_context=1))
    assert len(one.prepare(Request("r", prompt=[5] * 200, max_context=10**9)).ids) == 200


@pytest.mark.parametrize("messages", [[], ["x"], [{"content": "x"}], [{"role": "user", "content": 5}]])
@pytest.mark.parametrize("overflow", list(Overflow))
def test_malformed_messages(messages: Any, overflow: Overflow) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prompting().prepare(Request("r", messages=messages, overflow=overflow))
    assert caught.value.param == "messages"


def test_a_prompt_that_is_only_looked_at_may_have_any_length() -> None:
    one = prompting(limit=16)
    long = "the horses and the shepherd " * 40
    own = tokenizer()
    for text in (long, "a", ""):
        for special in (True, False):
            looked_at = one.prepare(Request("r", prompt=text, add_special_tokens=special), must_fit=False)
            assert looked_at.ids == own.encode(text, add_special=special, parse_special=False)
    assert len(one.prepare(chat(long), must_fit=False).ids) > 200
    assert one.prepare(Request("r", prompt=[5] * 100, max_context=1), must_fit=False).ids == [5] * 100
    assert one.prepare(Request("r", prompt=[]), must_fit=False).ids == []
    with pytest.raises(ContextLengthExceeded):
        one.prepare(chat(long))
    with pytest.raises(InvalidRequest, match="messages"):
        one.prepare(Request("r", messages=[]), must_fit=False)
