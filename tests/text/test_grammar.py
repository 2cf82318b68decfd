"""Every kind of grammar: an answer drawn at random from what the masks allow is what the grammar wants."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from corral.errors import InvalidRequest
from corral.grammar import Grammar, GrammarKind
from corral.text.tokenizer import Tokenizer
from tests.support.random_schemas import random_schema
from tests.text.grammar_walk import BYTE_LEVEL, SENTENCEPIECE, allowed_ids, compiler_of, walk

COMPILERS = {tokenizer: compiler_of(tokenizer) for tokenizer in (BYTE_LEVEL, SENTENCEPIECE)}
TOKENIZERS = pytest.mark.parametrize("tokenizer", COMPILERS, ids=["byte-level", "sentencepiece"])


def answers(grammar: Grammar, tokenizer: Tokenizer, count: int = 12, *, drops_space: bool = False) -> list[str]:
    """The texts of those that came to an end."""
    texts = []
    for seed in range(count):
        ids, is_whole = walk(COMPILERS[tokenizer].compile(grammar, drops_space=drops_space), tokenizer, seed)
        if is_whole:
            text = b"".join(map(tokenizer.token_bytes, ids)).decode()
            texts.append(text.removeprefix(" ") if drops_space else text)
    assert texts, "no answer came to an end"
    return texts


@TOKENIZERS
def test_a_json_object_is_one(tokenizer: Tokenizer) -> None:
    for text in answers(Grammar(GrammarKind.JSON_OBJECT), tokenizer, 60):
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_masks_allow_is_valid(seed: int) -> None:
    schema = random_schema(seed)
    try:
        matcher = COMPILERS[BYTE_LEVEL].compile(Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema)))
    except InvalidRequest:
        if "odd" not in schema["properties"]:
            raise
        return
    for walk_seed in range(3):
        ids, is_whole = walk(matcher.copy(), BYTE_LEVEL, walk_seed, 300)
        if is_whole:
            jsonschema.Draft202012Validator(schema).validate(json.loads(BYTE_LEVEL.decode(ids)))


@TOKENIZERS
@pytest.mark.parametrize("regex", [r"a/[0-9]{2}", "x\n?y", r"[^a-z\n]{3}", r"(?i)ab|c\\d", "a\\\nb", r"\d+\.\d"])
def test_a_regex_matches_the_whole_answer(tokenizer: Tokenizer, regex: str) -> None:
    for text in answers(Grammar(GrammarKind.REGEX, regex), tokenizer):
        assert re.fullmatch(regex, text), text


@TOKENIZERS
def test_a_choice_is_taken_as_it_is_written(tokenizer: Tokenizer) -> None:
    choices = ["yes", "yes, but", 'a"b', "\\n", "été", " begins with a space"]
    for drops_space in (False, tokenizer.adds_space_prefix):
        texts = answers(Grammar(GrammarKind.CHOICE, json.dumps(choices)), tokenizer, 40, drops_space=drops_space)
        assert set(texts) <= set(choices)
        assert len(set(texts)) > 2


@TOKENIZERS
def test_gbnf_and_lark_say_the_same(tokenizer: Tokenizer) -> None:
    lark = Grammar(GrammarKind.LARK, 'start: item (", " item)*\nitem: /[a-c]/ | "(" item ")"')
    gbnf = Grammar(GrammarKind.GBNF, 'root ::= item (", " item)*\nitem ::= [a-c] | "(" item ")"')
    for grammar in (lark, gbnf):
        for text in answers(grammar, tokenizer, 20):
            for item in text.split(", "):
                assert re.fullmatch(r"\(*[a-c]\)*", item)
                assert item.count("(") == item.count(")")


def test_sentencepiece_may_begin_with_its_space() -> None:
    """The detokenizer takes that space away, so the grammar must not see it either."""
    matcher = COMPILERS[SENTENCEPIECE].compile(Grammar(GrammarKind.REGEX, "[a-z]{1,3}"), drops_space=True)
    allowed = set(allowed_ids(matcher, SENTENCEPIECE) or ())
    _, spaced, bare = COMPILERS[SENTENCEPIECE].vocabulary.without_space
    pairs = {(space, rest) for space, rest in zip(spaced.tolist(), bare.tolist(), strict=True) if rest in allowed}
    assert pairs
    for space, _ in pairs:
        assert space in allowed
        assert SENTENCEPIECE.token_bytes(space)[:1] == b" "
        begun = matcher.copy()
        begun.accept(space)
        ids, is_whole = walk(begun, SENTENCEPIECE, 0)
        assert is_whole
        assert re.fullmatch("[a-z]{1,3}", SENTENCEPIECE.decode([space, *ids]))


def test_white_space_ends() -> None:
    """A small model may else write spaces until it is out of tokens."""
    matcher = COMPILERS[BYTE_LEVEL].compile(Grammar(GrammarKind.JSON_OBJECT))
    [brace] = BYTE_LEVEL.encode("{", add_special=False, parse_special=False)
    matcher.accept(brace)
    for _ in range(100):
        ids = allowed_ids(matcher, BYTE_LEVEL) or ()
        spaces = [i for i in ids if BYTE_LEVEL.token_bytes(i).isspace()]
        if not spaces:
            return
        matcher.accept(spaces[-1])
    raise AssertionError("a hundred tokens of white space, and no end")


def test_control_tokens_are_no_text() -> None:
    matcher = COMPILERS[BYTE_LEVEL].compile(Grammar(GrammarKind.REGEX, r"(.|\n)+"))
    special = [i for i in range(BYTE_LEVEL.vocab_size) if BYTE_LEVEL.is_special(i)]
    assert special
    assert not set(special) & set(allowed_ids(matcher, BYTE_LEVEL) or ())


def test_every_end_of_text_token_may_end_an_answer() -> None:
    matcher = COMPILERS[SENTENCEPIECE].compile(Grammar(GrammarKind.CHOICE, '["a"]'))
    matcher.accept(SENTENCEPIECE.encode_within("a")[0])
    assert set(allowed_ids(matcher, SENTENCEPIECE) or ()) == SENTENCEPIECE.eog_ids
    assert len(SENTENCEPIECE.eog_ids) > 1


def test_copies_go_their_own_ways() -> None:
    matcher = COMPILERS[BYTE_LEVEL].compile(Grammar(GrammarKind.CHOICE, '["ab", "cd"]'))
    twin = matcher.copy()
    matcher.accept(BYTE_LEVEL.encode_within("a")[0])
    assert allowed_ids(matcher, BYTE_LEVEL) != allowed_ids(twin, BYTE_LEVEL)
    assert walk(twin, BYTE_LEVEL, 0)[1]


def test_a_marker_is_its_token_where_it_is_one() -> None:
    vocabulary = COMPILERS[BYTE_LEVEL].vocabulary
    [token_id] = BYTE_LEVEL.encode("<|im_start|>", add_special=False, parse_special=True)
    assert vocabulary.terminal("<|im_start|>") == f"<[{token_id}]>"
    assert vocabulary.terminal('say "x"') == '"say \\"x\\""'


def test_calls_or_an_answer() -> None:
    compiler = COMPILERS[BYTE_LEVEL]
    marker = compiler.vocabulary.terminal("<|im_start|>")
    lark = f'start: {marker} arguments\narguments: %json {{"type": "integer", "minimum": 5, "maximum": 9}}'
    [token_id] = BYTE_LEVEL.encode("<|im_start|>", add_special=False, parse_special=True)
    only_calls = compiler.compile_calls(lark)
    assert allowed_ids(only_calls, BYTE_LEVEL) == [token_id]
    either = compiler.compile_calls(lark, Grammar(GrammarKind.CHOICE, '["-"]'))
    assert set(allowed_ids(either, BYTE_LEVEL) or ()) == {token_id, BYTE_LEVEL.encode_within("-")[0]}
    either.accept(token_id)
    ids, is_whole = walk(either, BYTE_LEVEL, 1)
    assert is_whole
    assert BYTE_LEVEL.decode(ids) in "56789"
