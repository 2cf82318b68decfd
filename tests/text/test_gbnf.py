"""GBNF: what llama.cpp's own grammars use, and errors that say the line."""

from __future__ import annotations

import pytest

from corral.errors import InvalidRequest
from corral.grammar import Grammar, GrammarKind, kind_of_grammar_text
from corral.text.grammar.gbnf import lark_of_gbnf
from tests.text.grammar_walk import BYTE_LEVEL, compiler_of

COMPILER = compiler_of(BYTE_LEVEL)

ARITHMETIC = r"""
root  ::= (expr "=" ws term "\n")+   # one line each
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""
LIST = 'root ::= item+\n\nitem ::= "- " [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ "\\n"\n'
CASES = [
    (ARITHMETIC, ["a+1=(b)\n", "x = y\nz=1\n"], ["a+1", "A=1\n"]),
    (LIST, ["- one\n- two\n"], ["-one\n", "- \n"]),
    ('root ::= "a"{2,3} [^"\\]]? ', ["aa", "aaa", "aaax"], ["a", "aaaaa", 'aa"', "aa]"]),
    ("root ::= .", ["x", "é"], ["xy"]),
    ('root ::=\n  "a" |\n  "b"\nx ::= "c"', ["a", "b"], ["c"]),
    ("root ::= ( [+-] | [a\\-c] )", ["+", "-", "a", "c"], ["b"]),
    ('root ::= "\\"" "/\\\\" [/\\\\^]', ['"/\\/', '"/\\^'], ['"/']),
    ('root ::= Foo-Bar foo_bar\nFoo-Bar ::= "x"\nfoo_bar ::= "y"', ["xy"], ["yx"]),
    ('root ::= "a" |', ["a"], ["b"]),
]


def matches(source: str, text: str) -> bool:
    matcher = COMPILER.compile(Grammar(GrammarKind.GBNF, source))
    ids = [i for character in text for i in BYTE_LEVEL.encode_within(character)]
    for token_id in [*ids, min(BYTE_LEVEL.eog_ids)]:
        if not matcher.accepts(token_id):
            return False
        matcher.accept(token_id)
    return True


@pytest.mark.parametrize(("source", "good", "bad"), CASES)
def test_a_grammar_matches_what_llama_cpp_matches(source: str, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert matches(source, text), text
    for text in bad:
        assert not matches(source, text), text


@pytest.mark.parametrize(
    ("source", "line", "fault"),
    [
        ("", 1, "no rule root"),
        ('a ::= "x"\n', 2, "no rule root"),
        ('root ::= "x', 1, "not closed"),
        ('root ::= a\na ::= "x" b\n', 2, "no rule b"),
        ('root ::= "x"\nroot ::= "y"', 2, "twice"),
        ('root ::= ("x"\n', 2, "not closed"),
        ("root ::= [a", 1, "not closed"),
        ("root ::= []", 1, "empty"),
        ("root ::= [z-a]", 1, "ends before"),
        ('\nroot = "x"', 2, "::= must follow"),
        ('root ::= "x"{3,1}', 1, "ends before"),
        ('root ::= "x"{a}', 1, "repetition"),
        ('root ::= "\\q"', 1, "no escape"),
        ('root ::= "\\ud800"', 1, "no character"),
        ('root ::= "x" )', 1, "not expected"),
        ("root ::= " + "(" * 100_000, 1, "nested"),
        ("(", 1, "name of a rule"),
    ],
)
def test_an_error_names_the_line(source: str, line: int, fault: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        lark_of_gbnf(source)
    assert f"in line {line}:" in refusal.value.message
    assert fault in refusal.value.message


def test_one_field_may_hold_either() -> None:
    assert kind_of_grammar_text('# a comment\nroot ::= "x"') is GrammarKind.GBNF
    assert kind_of_grammar_text('start: "x"') is GrammarKind.LARK
    assert kind_of_grammar_text('start: "root ::= x"') is GrammarKind.LARK
