# ruff: noqa: E501 - a template is one line here, whatever its length

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import InvalidRequest, UnsupportedModel
from corral.text.chat_template import CHATML, ChatTemplate
from corral.text.template_guard import NONCHARACTERS
from corral.text.template_limits import TemplateLimits
from corral.text.tokenizer import Tokenizer
from tests.support.tiny_vocab import bpe_metadata

TOKENIZER = Tokenizer.from_metadata(bpe_metadata())
USER = [{"role": "user", "content": "hi"}]
TIGHT = TemplateLimits(max_cpu_s=0.05, max_chars=100_000, max_total_chars=1_000_000, max_items=10_000)


def template(source: str | None, limits: TemplateLimits | None = None, **tokens: Any) -> ChatTemplate:
    texts = {"bos_token": "<s>", "eos_token": "</s>", "control_texts": TOKENIZER.control_texts} | tokens
    return ChatTemplate(source, limits=limits, **texts)


def rendered(source: str, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> str:
    return template(source).render(messages or USER, **kwargs).text


CONTENT = "{% for m in messages %}{{ m.content }}{% endfor %}"


class TestRendering:
    def test_a_file_without_template_falls_back_to_chatml_with_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        fallback = template(None)
        assert fallback.is_fallback
        assert "ChatML" in caplog.text
        assert fallback.render(USER).text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        assert fallback.render(USER, add_generation_prompt=False).text == "<|im_start|>user\nhi<|im_end|>\n"
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert not template(CHATML).is_fallback
        assert not caplog.text

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<s>hi</s>"),
            ("  {% if true %}\n  x\n  {% endif %}\ny", "  x\ny"),
            (
                "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
                "02",
            ),
            ("{% generation %}a{{ messages|length }}{% endgeneration %}b", "a1b"),
            (
                "{% for m in messages %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{{ loop.first }}{% endfor %}",
                "1True1True",
            ),
            ("{{ tools is none }}{{ tools is defined }}{{ unknown is defined }}{{ unknown }}", "TrueTrueFalse"),
            ("{{ {'a': '<é&\\'>'}|tojson }}", '{"a": "<é&\'>"}'),
            ("{{ [1, {'b': 2, 'a': 1}]|tojson(indent=1, sort_keys=true) }}", '[\n 1,\n {\n  "a": 1,\n  "b": 2\n }\n]'),
            ("{% set ns = namespace(n=0) %}{% for m in 'abc' %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "3"),
            ("{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "321"),
            (
                "{% for n in [[1, [2]], [3]] recursive %}{% if n is iterable %}({{ loop(n) }}){% else %}{{ n }}{% endif %}{% endfor %}",
                "(1(2))(3)",
            ),
            (
                "{{ 'a-b-c'.split('-')[-1] ~ 1 ~ none }}{{ '-'.join(['x', 'y']) }}{{ '{:>3}|%s'.format(7) % 'z' }}",
                "c1Nonex-y  7|z",
            ),
            (
                "{{ messages|map(attribute='role')|join(',') }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
                "user1",
            ),
            ("{% set x %}a{{ 1 }}{% endset %}{{ x|trim|upper|replace('A', 'b') }}{{ 'a\nb'|indent(2) }}", "b1a\n  b"),
            (
                "{{ ('a' * 3) + 'b' }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ [1] + [2] }}{{ '%05.1f' % 2.25 }}",
                "aaab10243[1, 2]002.2",
            ),
            ("{{ strftime_now('%Y')|length }}", "4"),
            ("{{ messages[0].items()|list|length }}{{ messages[0].get('x', 'y') }}", "2y"),
        ],
    )
    def test_templates_do_what_hugging_face_has_them_do(self, source: str, expected: str) -> None:
        assert rendered(source) == expected

    def test_tools_and_other_arguments_reach_the_template(self) -> None:
        tools = [{"type": "function", "function": {"name": "f"}}]
        source = "{{ tools|tojson }}{{ enable_thinking }}{{ bos_token }}"
        assert rendered(source, tools=tools, enable_thinking=False, bos_token="x") == json.dumps(tools) + "False<s>"

    def test_text_parts_are_joined(self) -> None:
        parts: list[Any] = [{"type": "text", "text": "a"}, "b", {"type": "text", "text": "c"}]
        assert rendered(CONTENT, [{"role": "user", "content": parts}]) == "a\nb\nc"

    def test_the_messages_given_are_left_as_they_were(self) -> None:
        messages = [{"role": "user", "content": [{"type": "text", "text": "<|im_end|>"}]}]
        template(CHATML).render(messages)
        assert messages == [{"role": "user", "content": [{"type": "text", "text": "<|im_end|>"}]}]


class TestRefusal:
    @pytest.mark.parametrize(
        "messages",
        [
            [],
            "hi",
            None,
            {},
            ["hi"],
            [{}],
            [{"role": 1, "content": "a"}],
            [{"role": "user", "content": 1}],
            [{"role": "user", "content": {"text": "a"}}],
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            [{"role": "user", "content": [{"type": "text"}]}],
            [{"role": "user", "content": [1]}],
        ],
    )
    def test_malformed_messages_are_the_clients_mistake(self, messages: Any) -> None:
        with pytest.raises(InvalidRequest, match="messages") as caught:
            template(CHATML).render(messages)
        assert caught.value.param == "messages"

    def test_endless_nesting_is_refused(self) -> None:
        nested: Any = "x"
        for _ in range(5000):
            nested = [nested]
        with pytest.raises(InvalidRequest, match="64 levels"):
            template(CHATML).render(USER, tools=nested)

    def test_a_templates_own_refusal_is_passed_on_in_its_words(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            rendered("{{ raise_exception('roles must alternate, not ' + messages[0].role) }}", [{"role": "<|im_end|>"}])
        assert caught.value.message == "roles must alternate, not <|im_end|>"

    def test_a_template_that_fails_says_so(self) -> None:
        with pytest.raises(InvalidRequest, match=r"failed on these messages.*None"):
            template(CHATML).render([{"role": "assistant", "content": None}])

    @pytest.mark.parametrize(
        "source",
        [
            "{% for %}",
            "{{ x|no_such_filter }}",
            "{% include 'x' %}{{ 1 +",
            "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
            "{% if true %}" * 500 + "{% endif %}" * 500,
            "{{ 1" + " + 1" * 20_000 + " }}",
            "{# " + "x" * (300 << 10) + " #}",
            "{{ 'a'|indent(100000) }}{{ '\\ud800'|center(9) }}",
        ],
    )
    def test_a_template_that_does_not_compile_is_an_unsupported_model(self, source: str) -> None:
        with pytest.raises(UnsupportedModel, match="chat template"):
            template(source)


DOUBLE = "{% set ns = namespace(x=START) %}{% for i in range(64) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x|length }}"


def doubling(start: str, step: str) -> str:
    return DOUBLE.replace("START", start).replace("STEP", step)


HOSTILE = {
    "long loop": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops over one list": "{% set l = range(9999)|list %}{% for i in l %}{% for j in l %}{% for k in l %}{% endfor %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for n in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "recursive macro": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "macros that call two": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "text times number": "{{ 'a' * 10**9 }}",
    "number times text": "{{ 10**9 * 'a' }}",
    "list times number": "{{ ([1] * 10**9)|length }}",
    "number to the power": "{{ 10 ** (10 ** 10) }}",
    "power of a power": "{{ (2 ** 4000) ** 4000 }}",
    "long output": "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "doubling by +": doubling("'a'", "ns.x + ns.x"),
    "doubling by ~": doubling("'a'", "ns.x ~ ns.x"),
    "doubling a list by +": doubling("[1]", "ns.x + ns.x"),
    "doubling a list by nesting": doubling("[1]", "[ns.x, ns.x]").replace("|length", ""),
    "doubling a tuple by nesting": doubling("[1]", "(ns.x, ns.x)") + "{{ ns.x == ns.x }}",
    "doubling a dictionary": doubling("1", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x|tojson }}",
    "doubling by dict()": doubling("1", "dict(a=ns.x, b=ns.x)"),
    "doubling by join": doubling("'a'", "[ns.x, ns.x]|join"),
    "doubling by str.join": doubling("'a'", "''.join([ns.x, ns.x])"),
    "doubling by replace": doubling("'aa'", "ns.x|replace('a', 'aa')"),
    "doubling by str.replace": doubling("'aa'", "ns.x.replace('a', 'aa')"),
    "doubling by %": doubling("'a'", "'%s%s' % (ns.x, ns.x)"),
    "doubling by format": doubling("'a'", "'%s%s'|format(ns.x, ns.x)"),
    "doubling by str.format": doubling("'a'", "'{0}{0}'.format(ns.x)"),
    "doubling by set": doubling("'a'", "y").replace("{% set ns.x", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x"),
    "doubling by macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}" + doubling("'a'", "f(ns.x)"),
    "namespaces in namespaces": "{% set a = namespace(x=1) %}{% set b = namespace(x=a, y=a) %}{{ b }}",
    "wide %": "{{ '%999999999d' % 1 }}",
    "wide % from a value": "{{ '%*d' % (999999999, 1) }}",
    "wide format filter": "{{ '%999999999d'|format(1) }}",
    "wide str.format": "{{ '{:>999999999}'.format(1) }}",
    "wide str.format from a value": "{{ '{:>{}}'.format(1, 999999999) }}",
    "wide indent": "{% set x = 'a\n' * 9999 %}{{ x|indent(9999) }}",
    "wide tojson": "{{ [[[1]]]|tojson(indent=999999999) }}",
    "long batch": "{{ [1]|batch(999999999, 0)|list|length }}",
    "many slices": "{{ [1]|slice(999999999)|list|length }}",
    "forbidden methods": "{{ 'a'.center(999999999) }}",
    "bytes of a number": "{{ (5).to_bytes(999999999, 'big')|length }}",
    "lorem ipsum": "{{ lipsum(n=999999) }}",
    "out of the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "huge number from text": "{{ ('f' * 99999)|int(0, 16) // 3 }}",
    "lazy filter that lets nothing through": "{% set l = range(9999)|list %}{% for i in l %}{{ l|select('gt', 9999)|list }}{% endfor %}",
    "out through a cycler": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "changing the messages": "{% if messages.append(1) %}{% endif %}",
    "lazy chain": "{% for i in range(9999) %}{{ range(9999)|map('string')|map('upper')|list|length }}{% endfor %}",
    "quadratic membership": "{% set l = range(99999)|list %}{% for i in l %}{{ i in l }}{% endfor %}",
}  # fmt: skip


class TestLimits:
    @pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
    def test_a_hostile_template_is_stopped(self, source: str) -> None:
        with pytest.raises((InvalidRequest, UnsupportedModel), match=r"template|sandbox"):
            template(source, TIGHT).render(USER)

    @pytest.mark.parametrize(
        "source",
        [
            "{{ raise_exception.__globals__ }}",
            "{{ '{0.__class__}'.format('') }}",
            "{{ ''|attr('__class__') }}",
            "{{ namespace.__init__ }}",
            "{{ messages.clear }}",
        ],
    )
    def test_what_leads_out_of_the_sandbox_is_not_there(self, source: str) -> None:
        assert rendered(source) == ""

    def test_a_loop_is_stopped_in_any_thread(self) -> None:
        looping = template(HOSTILE["nested loops"], TIGHT)
        errors: list[Exception] = []

        def render() -> None:
            try:
                looping.render(USER)
            except InvalidRequest as error:
                errors.append(error)

        threads = [threading.Thread(target=render) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(error) for error in errors] == ["rendering the chat template took more than 0.05 s of CPU time"] * 4

    def test_a_thousand_messages_are_no_trouble(self) -> None:
        messages = [{"role": "user", "content": "word " * 200}] * 1000
        assert len(template(CHATML).render(messages).text) > 1_000_000

    def test_a_prompt_beyond_the_limit_is_refused_with_it(self) -> None:
        with pytest.raises(InvalidRequest, match="100000 characters"):
            template(CHATML, TIGHT).render([{"role": "user", "content": "x" * 100_001}])


def ids_of(messages: list[dict[str, Any]], source: str = CHATML, **kwargs: Any) -> list[int]:
    result = template(source).render(messages, **kwargs)
    return TOKENIZER.encode_chat(result.text, result.guard)


class TestGuard:
    pieces = st.sampled_from(
        ["<|im_end|>", "<|im_start|>", "<|", "im_end", "|>", "<", ">", "|im_end|>", "x", "\n", "<|im_", "end|>"]
    )

    @given(st.lists(pieces, max_size=12).map("".join), st.lists(pieces, max_size=12).map("".join))
    def test_users_cannot_write_control_tokens(self, first: str, second: str) -> None:
        source = "<|im_start|>{% for m in messages %}{{ m.role }}{{ m.content }}{{ m.content }}{% endfor %}<|im_end|>"
        ids = ids_of([{"role": "user", "content": first}, {"role": second, "content": second}], source)
        assert [i for i in ids if TOKENIZER.is_special(i)] == [1, 2]
        assert TOKENIZER.decode(ids) == f"user{first}{first}{second}{second}{second}"

    def test_the_rest_of_a_control_token_in_the_template_does_not_complete_it(self) -> None:
        ids = ids_of([{"role": "user", "content": "<|im"}], "{{ messages[0].content }}_end|>x")
        assert not any(map(TOKENIZER.is_special, ids))
        assert TOKENIZER.decode(ids) == "<|im_end|>x"

    def test_a_template_may_build_a_control_token_around_a_role(self) -> None:
        assert ids_of([{"role": "im_end", "content": ""}], "<|{{ messages[0].role }}|>") == [2]

    def test_tools_and_keys_are_guarded_too(self) -> None:
        ids = ids_of(USER, "{{ tools|tojson }}", tools=[{"<|im_end|>": "<|im_start|>"}])
        assert TOKENIZER.decode(ids) == '[{"<|im_end|>": "<|im_start|>"}]'

    def test_a_template_finds_other_marks_in_what_users_wrote(self) -> None:
        source = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"
        messages = [{"role": "assistant", "content": "<think>a <|im_end|></think>b"}]
        assert TOKENIZER.decode(ids_of(messages, source)) == "b"

    def test_the_guard_is_a_character_that_nobody_used(self) -> None:
        used = "".join(NONCHARACTERS[:5])
        messages = [{"role": "user", "content": used + "<|im_end|>"}]
        result = template(CHATML).render(messages, tools=[{NONCHARACTERS[5]: NONCHARACTERS[6]}])
        assert result.guard == NONCHARACTERS[7]
        assert used + "<|im_end|>" in TOKENIZER.decode(TOKENIZER.encode_chat(result.text, result.guard))

    def test_messages_that_leave_no_guard_are_refused(self) -> None:
        with pytest.raises(InvalidRequest, match=r"U\+FDD0"):
            template(CHATML).render([{"role": "user", "content": "".join(NONCHARACTERS)}])

    def test_plain_messages_are_rendered_as_they_are(self) -> None:
        result = template(CHATML).render([{"role": "user", "content": "a < b > c </think> | [x]"}])
        assert result.guard not in result.text

    def test_a_control_token_of_one_character_is_guarded(self) -> None:
        metadata = bpe_metadata()
        metadata["tokenizer.ggml.tokens"] += ["\u0394"]
        metadata["tokenizer.ggml.token_type"] += [3]
        tokenizer = Tokenizer.from_metadata(metadata)
        result = template("\u0394{{ messages[0].content }}", control_texts=tokenizer.control_texts).render(
            [{"role": "user", "content": "a\u0394\u0394"}]
        )
        ids = tokenizer.encode_chat(result.text, result.guard)
        assert ids.count(tokenizer.vocab_size - 1) == 1
        assert tokenizer.decode(ids) == "a\u0394\u0394"
