"""Logits of the real models against llama.cpp's goldens; see tests/support/golden.py for what a golden can tell."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.agreement import compare_with_golden
from tests.support.golden import GOLDEN_FOLDER, Golden, best_and_margin
from tests.support.models import MODEL_PARAMS, model_path
from tests.support.native_runner import NativeRunner, Part
from tests.support.random_models import file_digest

# Greedy answers may part where llama.cpp's best token leads by less than this: about twice the deviation of a logit.
DOUBTFUL_MARGIN = 0.5

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", params=MODEL_PARAMS)
def loaded(request: pytest.FixtureRequest) -> tuple[str, NativeRunner]:
    """(name, runner) of one real model after the other."""
    return request.param, NativeRunner(model_path(request.param), max_tokens=256)


def test_logits_agree_with_llama_cpp_and_the_reference(loaded: tuple[str, NativeRunner]) -> None:
    name, runner = loaded
    golden = Golden.load(GOLDEN_FOLDER / f"{name}.npz")
    assert file_digest(model_path(name)) == golden.info["sha256"], f"{name} is not the file of the golden"
    agreement = compare_with_golden(golden, runner.logits)
    print(name, agreement)
    assert agreement.is_near_llama, agreement
    assert agreement.is_as_exact_as_llama, agreement


def greedy(runner: NativeRunner, prompt_ids: list[int], count: int) -> list[int]:
    """`count` likeliest tokens, one after the other."""
    ids = list(prompt_ids)
    logits = runner.all_logits(ids)
    while True:
        ids.append(int(best_and_margin(logits[-1:])[0][0]))
        if len(ids) == len(prompt_ids) + count:
            return ids[len(prompt_ids) :]
        logits = runner.forward([Part(ids[-1:], range(runner.num_blocks), len(ids) - 1)])


def test_greedy_answers_part_from_llama_cpp_only_where_it_is_in_doubt(loaded: tuple[str, NativeRunner]) -> None:
    name, runner = loaded
    answers = json.loads((GOLDEN_FOLDER / "greedy.json").read_text(encoding="utf-8"))[name]
    assert len(answers) == 3
    for answer in answers:
        ids = greedy(runner, answer["prompt_ids"], len(answer["ids"]))
        parted = np.flatnonzero(np.array(ids) != np.array(answer["ids"]))
        num_same = int(parted[0]) if len(parted) else len(ids)
        print(f"{name}: {num_same} of {len(ids)} tokens the same after {answer['prompt']!r}")
        if num_same < len(ids):
            assert answer["margins"][num_same] < DOUBTFUL_MARGIN
