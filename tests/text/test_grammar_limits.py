"""Hostile grammars: each is refused with its reason, within its limits, and costs nobody else anything."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.grammar import Grammar, GrammarKind
from corral.limits import MAX_GRAMMAR_CHOICES
from corral.text.grammar import compile as grammar_compile
from corral.text.grammar.sources import MAX_SOURCE_BYTES
from tests.text.grammar_walk import BYTE_LEVEL, compiler_of, walk

COMPILER = compiler_of(BYTE_LEVEL)


def schema_of(value: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(value))


def nested(depth: int) -> str:
    return '{"items":' * depth + "{}" + "}" * depth


REFUSED = [
    (Grammar(GrammarKind.JSON_SCHEMA, "{"), "not JSON"),
    (Grammar(GrammarKind.JSON_SCHEMA, '{"minimum": NaN}'), "not JSON"),
    (Grammar(GrammarKind.JSON_SCHEMA, '{"minimum": ' + "9" * 5000 + "}"), "too many digits"),
    (Grammar(GrammarKind.JSON_SCHEMA, "[]"), "must be an object"),
    (Grammar(GrammarKind.JSON_SCHEMA, "false"), "no answer can match"),
    (Grammar(GrammarKind.JSON_SCHEMA, nested(200)), "nested"),
    (Grammar(GrammarKind.JSON_SCHEMA, nested(50_000)), "nested"),
    (Grammar(GrammarKind.JSON_SCHEMA, " " * (1 << 20)), "the limit is"),
    (schema_of({"type": "something", "description": "x"}), "Invalid type"),
    (schema_of({"type": ""}), "Invalid type"),
    (schema_of({"type": "array", "uniqueItems": True}), "uniqueItems"),
    (schema_of({"not": {}}), "not"),
    (schema_of({"type": "string", "format": "unheard-of"}), "unheard-of"),
    (schema_of({"type": "string", "pattern": "(?=a)b"}), "look-ahead"),
    (schema_of({"type": "string", "pattern": "\\d{"}), "repetition"),
    (schema_of({"$ref": "http://127.0.0.1/schema.json"}), "retriev"),
    (schema_of({"type": "integer", "multipleOf": 999_999}), "multipleOf"),
    (schema_of({"allOf": [{"type": "integer", "multipleOf": 997}, {"multipleOf": 991}]}), "multipleOf"),
    (schema_of({"type": "integer", "minimum": 3, "maximum": 2}), "minimum"),
    (schema_of({"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True}), "uniqueItems"),
    (schema_of({"items": {"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True}}), "uniqueItems"),
    (schema_of({"$ref": "#"}), "cannot be used"),
    (Grammar(GrammarKind.REGEX, ""), "empty"),
    (Grammar(GrammarKind.REGEX, "a\\"), "backslash"),
    (Grammar(GrammarKind.REGEX, "("), "unclosed group"),
    (Grammar(GrammarKind.REGEX, "(" * 5000 + "a" + ")" * 5000), "regex"),
    (Grammar(GrammarKind.REGEX, "a" * (MAX_SOURCE_BYTES[GrammarKind.REGEX] + 1)), "the limit is"),
    (Grammar(GrammarKind.CHOICE, "[]"), "one at least"),
    (Grammar(GrammarKind.CHOICE, '["a", 1]'), "list of texts"),
    (Grammar(GrammarKind.CHOICE, '[""]'), "empty text"),
    (Grammar(GrammarKind.CHOICE, "[" * 100_000), "list of texts"),
    (Grammar(GrammarKind.CHOICE, '["\\ud800"]'), "Unicode"),
    (Grammar(GrammarKind.CHOICE, json.dumps([str(n) for n in range(10_001)])), "10001"),
    (Grammar(GrammarKind.LARK, 'begin: "a"'), "no start rule"),
    (Grammar(GrammarKind.LARK, 'start: "a" nobody'), "nobody"),
    (Grammar(GrammarKind.LARK, 'start: start "a"'), "no text matches"),
    (Grammar(GrammarKind.LARK, "start: A\nA: B\nB: A"), "circular"),
    (Grammar(GrammarKind.LARK, "start: " + "(" * 9999 + '"a"' + ")" * 9999), "nested"),
    (Grammar(GrammarKind.LARK, "start: %json " + nested(5000)), "recursion"),
    (Grammar(GrammarKind.LARK, 'start: %json {"type": "integer", "multipleOf": 999983}'), "multipleOf"),
    (Grammar(GrammarKind.LARK, 'start: %json {"type": "integer", "multiple\\u004ff": 999983}'), "multipleOf"),
]


@pytest.mark.parametrize(("grammar", "reason"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_be_used_is_refused_with_its_reason(grammar: Grammar, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        COMPILER.compile(grammar)
    assert reason in refusal.value.message
    assert refusal.value.param == "grammar"
    assert len(refusal.value.message) < 800
    assert "<state>" not in refusal.value.message  # nothing of the library's inside


def test_as_many_choices_as_the_limit_says_can_be_answered() -> None:
    choices = [f"{number} of them" for number in range(MAX_GRAMMAR_CHOICES)]
    matcher = COMPILER.compile(Grammar(GrammarKind.CHOICE, json.dumps(choices)))
    for seed in range(5):
        ids, is_whole = walk(matcher.copy(), BYTE_LEVEL, seed)
        assert is_whole
        assert BYTE_LEVEL.decode(ids) in choices


BOMBS = [
    Grammar(GrammarKind.REGEX, "(a{1,1000}){1,1000}"),
    Grammar(GrammarKind.REGEX, "((a{1,100}){1,100}){1,100}"),
    Grammar(GrammarKind.REGEX, "(((((a?){30}){30}){30}){30}){30}"),
    Grammar(GrammarKind.REGEX, "(a|aa)+$"),
    Grammar(GrammarKind.REGEX, "(.*a){30}"),
    Grammar(GrammarKind.REGEX, ".*a.{20}"),
    Grammar(GrammarKind.REGEX, r"(\p{L}{1,100}){1,50}"),
    Grammar(GrammarKind.REGEX, r"(?i)(\w{1,200}\s){1,60}"),
    schema_of({"type": "string", "pattern": "^(a{1,1000}){1,1000}$"}),
    schema_of({"type": "string", "maxLength": 10_000_000}),
    schema_of({"type": "array", "items": {"type": "integer"}, "minItems": 999_999, "maxItems": 1_000_000}),
    schema_of({"enum": [f"value {number}" for number in range(10_000)]}),
    schema_of({"properties": {f"p{number}": {"type": "string"} for number in range(1000)}}),
    schema_of({"$defs": {"a": {"anyOf": [{"type": "null"}, {"items": {"$ref": "#/$defs/a"}}]}}, "$ref": "#/$defs/a"}),
    schema_of(
        {
            "$defs": {"a0": {"type": "integer"}}
            | {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n - 1}"}, {"$ref": f"#/$defs/a{n - 1}", "minimum": n}]}
               for n in range(1, 25)},
            "$ref": "#/$defs/a24",
        }
    ),
    schema_of({"allOf": [{"anyOf": [{"properties": {f"x{j}_{i}": {}}} for i in range(6)]} for j in range(7)]}),
    Grammar(GrammarKind.LARK, 'start: start start | "a" | '),
    Grammar(GrammarKind.LARK, 'start: a{1,1000}\na: b{1,1000}\nb: "x"{1,1000}'),
    Grammar(GrammarKind.LARK, 'start: x x x x x x x x\nx: /a*/ | x x | "a"*'),
    Grammar(GrammarKind.GBNF, 'root ::= a{1,1000}\na ::= b{1,1000}\nb ::= ("x"?){1,1000}'),
]  # fmt: skip


@pytest.mark.parametrize("grammar", BOMBS, ids=lambda grammar: grammar.source[:40])
def test_a_bomb_is_refused_or_runs_within_its_limits(grammar: Grammar) -> None:
    """Never an exception of another kind, and never without an end: the test's own time limit holds that."""
    with contextlib.suppress(InvalidRequest):
        walk(COMPILER.compile(grammar), BYTE_LEVEL, 0, 60)


def test_a_panic_within_the_library_is_the_requests_fault_only(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = compiler_of(BYTE_LEVEL)

    def fail(text: str) -> list[int]:
        raise RuntimeError(text)

    with monkeypatch.context() as patch:
        patch.setattr(type(BYTE_LEVEL), "encode_within", lambda self, text: fail(text))
        with pytest.raises(InvalidRequest, match="could not be worked out"):
            compiler.compile(Grammar(GrammarKind.CHOICE, '["abcdefgh"]'))
    assert walk(compiler.compile(Grammar(GrammarKind.CHOICE, '["abcdefgh"]')), BYTE_LEVEL, 0)[1]


def test_a_grammar_that_takes_too_long_is_refused_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = compiler_of(BYTE_LEVEL, max_compile_s=0.2)
    assert compiler.vocabulary is not None  # made before the clock runs
    release = threading.Event()
    compile_now = grammar_compile._compile

    def compile_late(source: str, *rest: Any) -> Any:
        if "slow" in source:
            release.wait()
        return compile_now(source, *rest)

    monkeypatch.setattr(grammar_compile, "_compile", compile_late)
    with pytest.raises(InvalidRequest, match="takes more than"):
        compiler.compile(Grammar(GrammarKind.CHOICE, '["slow"]'))
    compiler.compile(Grammar(GrammarKind.CHOICE, '["quick"]'))
    with pytest.raises(InvalidRequest, match="takes more than"):
        compiler.compile(Grammar(GrammarKind.CHOICE, '["slow too"]'))
    with pytest.raises(InvalidRequest, match="behind others"):
        compiler.compile(Grammar(GrammarKind.CHOICE, '["no place left"]'))
    release.set()
    compiler.compile(Grammar(GrammarKind.CHOICE, '["quick again"]'))


def test_the_cache_keeps_what_was_used_last_under_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_now = grammar_compile._compile

    def compile_counted(source: str, *rest: Any) -> Any:
        compiled.append(source)
        return compile_now(source, *rest)

    monkeypatch.setattr(grammar_compile, "_compile", compile_counted)
    compiler = compiler_of(BYTE_LEVEL, cache_bytes=1_000_000)

    def choose(text: str) -> int:
        compiler.compile(Grammar(GrammarKind.CHOICE, json.dumps([text])))
        assert 0 < compiler.num_bytes <= 1_000_000
        return len(compiled)

    assert choose("first") == 1
    assert choose("first") == 1
    for number in range(50):
        choose(f"number {number}")
        choose("first")
    assert len(compiled) == 51  # the first was never forgotten
    assert choose("number 0") == 52  # but this one was
    assert choose("x" * 100_000) == 53  # larger than the whole cache: not remembered
    assert choose("x" * 100_000) == 54
    assert choose("first") == 54


def test_the_cap_knows_what_a_grammar_really_holds() -> None:
    """A schema of forty bytes may hold megabytes."""
    compiler = compiler_of(BYTE_LEVEL, cache_bytes=10_000_000)
    for number in range(9_000, 9_010):
        compiler.compile(schema_of({"type": "integer", "multipleOf": number}))
        assert compiler.num_bytes <= 10_000_000
    assert compiler.num_bytes >= 2 * 400 * 9_000
