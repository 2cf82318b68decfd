"""Schemas times real model output: every answer is valid, or its schema was refused with its reason."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from corral import LLM, Grammar, GrammarKind, SamplingParams
from corral.errors import InvalidRequest
from corral.llm import Completion
from corral.request import FinishReason
from tests.support.models import model_path
from tests.support.random_schemas import random_schema

pytestmark = pytest.mark.e2e

# Its source archive has the JSON Schema test suite in it.
SUITE = "jsonschema==4.26.0"
SUITE_SHA256 = "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326"
DRAFTS: dict[str, Any] = {
    "draft7": jsonschema.Draft7Validator,
    "draft2020-12": jsonschema.Draft202012Validator,
}
NUM_SCHEMAS = 500
MESSAGES = [{"role": "user", "content": "Describe a person you have met, as JSON. Be brief."}]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(model_path("smollm2-135m"), max_model_len=2048) as model:
        yield model


def schema_grammar(schema: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))


def answers(llm: LLM, schemas: list[Any], max_tokens: int) -> tuple[dict[int, Completion], dict[int, str]]:
    """By index: what the model said, or why its schema was refused."""
    refused: dict[int, str] = {}
    taken: list[int] = []
    for index, schema in enumerate(schemas):
        try:
            llm.chat(MESSAGES, SamplingParams(max_tokens=1), grammar=schema_grammar(schema))
        except InvalidRequest as refusal:
            refused[index] = refusal.message
        else:
            taken.append(index)
    sampling = [SamplingParams(max_tokens=max_tokens, temperature=1.0, seed=index) for index in taken]
    said = llm.chat([MESSAGES] * len(taken), sampling, grammar=[schema_grammar(schemas[index]) for index in taken])
    return dict(zip(taken, said, strict=True)), refused


def is_whole(said: Completion) -> bool:
    return said.outputs[0].finish_reason is FinishReason.STOP


def test_answers_to_generated_schemas_are_valid(llm: LLM) -> None:
    schemas = [random_schema(seed) for seed in range(40)]
    said, refused = answers(llm, schemas, 250)
    assert all("odd" in schemas[index]["properties"] for index in refused)
    assert sum(map(is_whole, said.values())) >= 25
    for index, answer in said.items():
        if is_whole(answer):
            jsonschema.Draft202012Validator(schemas[index]).validate(json.loads(answer.text))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_schemas(llm: LLM, tmp_path: Path) -> None:
    """Half of the schemas are the JSON Schema test suite's, evenly picked from two drafts, and half are generated."""
    suite = list(suite_schemas(tmp_path))
    every = max(1, len(suite) // (NUM_SCHEMAS // 2))
    picked = suite[::every][: NUM_SCHEMAS // 2]
    picked += [(jsonschema.Draft202012Validator, random_schema(seed)) for seed in range(NUM_SCHEMAS - len(picked))]
    said, refused = answers(llm, [schema for _, schema in picked], 400)
    assert len(said) + len(refused) == NUM_SCHEMAS
    assert all(reason.startswith("the JSON Schema ") and len(reason) > 30 for reason in refused.values())
    num_whole = sum(map(is_whole, said.values()))
    print(f"{num_whole} answers whole, {len(said) - num_whole} cut, {len(refused)} schemas refused")
    assert num_whole >= 250
    for index, answer in said.items():
        validator, schema = picked[index]
        if is_whole(answer):
            validator(schema).validate(json.loads(answer.text))


def suite_schemas(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Every schema of the test suite, with the validator of its draft."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-binary", ":all:", "--dest", str(folder), SUITE], check=True)
    [archive] = folder.glob("*.tar.gz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SUITE_SHA256
    with tarfile.open(archive) as files:
        for member in sorted(files.getmembers(), key=lambda each: each.name):
            parts = Path(member.name).parts
            if member.isfile() and len(parts) == 5 and parts[1:3] == ("json", "tests") and parts[3] in DRAFTS:
                content = files.extractfile(member)
                assert content is not None
                for case in json.load(content):
                    yield DRAFTS[parts[3]], case["schema"]


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar(GrammarKind.REGEX, r"[A-Z][a-z]{2,10}, [0-9]{4}"), r"[A-Z][a-z]{2,10}, [0-9]{4}"),
        (Grammar(GrammarKind.CHOICE, '["Paris", "Rome"]'), "Paris|Rome"),
        (Grammar(GrammarKind.LARK, 'start: "It is " /[a-z]{3,9}/ "."'), r"It is [a-z]{3,9}\."),
        (Grammar(GrammarKind.GBNF, 'root ::= ("a" | "b"){3} [0-9]'), r"[ab]{3}[0-9]"),
    ],
)
def test_every_kind_holds_for_every_answer_of_a_request(llm: LLM, grammar: Grammar, pattern: str) -> None:
    [said] = llm.generate("The capital is", SamplingParams(n=4, seed=1, max_tokens=60), grammar=grammar)
    assert len(said.outputs) == 4
    for output in said.outputs:
        assert output.finish_reason is FinishReason.STOP
        assert re.fullmatch(pattern, output.text), output.text


def test_one_batch_has_answers_with_and_without(llm: LLM) -> None:
    greedy = SamplingParams(temperature=0, max_tokens=8)
    [free] = llm.chat(MESSAGES, greedy)
    number = Grammar(GrammarKind.REGEX, "[0-9]{3}")
    mixed = llm.chat([MESSAGES, MESSAGES, MESSAGES], greedy, grammar=[None, number, None])
    assert [mixed[0].text, mixed[2].text] == [free.text, free.text]
    assert re.fullmatch("[0-9]{3}", mixed[1].text)


def test_a_hostile_grammar_ends_its_own_request_only(llm: LLM) -> None:
    for grammar in (Grammar(GrammarKind.REGEX, "("), Grammar(GrammarKind.JSON_SCHEMA, '{"type": "nothing"}')):
        with pytest.raises(InvalidRequest, match="cannot be used"):
            llm.chat(MESSAGES, grammar=grammar)
    for source in ("(a{1,1000}){1,1000}", "(.*a){30}", ".*a.{20}"):
        llm.chat(MESSAGES, SamplingParams(max_tokens=20, seed=1), grammar=Grammar(GrammarKind.REGEX, source))
    [said] = llm.chat(MESSAGES, SamplingParams(max_tokens=8), grammar=Grammar(GrammarKind.CHOICE, '["still here"]'))
    assert said.text == "still here"
