"""The whole engine over the native core: tiny random weights, real blocks, real draws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from corral._native import Model
from corral.config import EngineConfig
from corral.engine.core import EngineCore
from corral.engine.model_runner import ModelRunner
from corral.engine.output import SequenceOutput, TokenLogprobs
from corral.engine.sequence import SequenceGroupSpec
from corral.sampling_params import SamplingParams
from tests.support.tiny_engine import MAX_MODEL_LEN, VOCAB_SIZE, make_core, make_model, run


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model()


def make_specs(count: int) -> list[SequenceGroupSpec]:
    """Greedy and seeded, with penalties and without, alone and in groups; half of them share a long prefix."""
    rng = np.random.default_rng(11)
    stem = rng.integers(0, VOCAB_SIZE, 40).tolist()
    flavours: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.0, "seed": 5, "top_k": 20, "n": 3},
        {"temperature": 0.8, "seed": 9, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2},
        {"temperature": 0.0, "presence_penalty": 0.7, "frequency_penalty": 0.3, "logit_bias": {3: 2.0}},
    ]
    specs = []
    for i in range(count):
        prompt = (stem if i % 2 else []) + rng.integers(0, VOCAB_SIZE, 1 + 7 * i % 50).tolist()
        specs.append(SequenceGroupSpec(f"r{i}", prompt, SamplingParams(max_tokens=24, **flavours[i % 4])))
    return specs


@pytest.fixture(scope="module")
def alone(model: Model) -> dict[tuple[str, int], tuple[int, ...]]:
    """Each answer of an engine that serves one sequence at a time and shares nothing."""
    answers = {}
    for spec in make_specs(8):
        core = make_core(model, max_num_batched_tokens=256, max_num_seqs=1, enable_prefix_caching=False)
        answers.update(run(core, [spec]))
    assert len(set(answers.values())) == len(answers)
    return answers


@pytest.mark.parametrize("max_num_batched_tokens", [16, 64, 256])
@pytest.mark.parametrize("caching", [True, False], ids=["caching", "no caching"])
def test_answers_do_not_depend_on_the_company(
    model: Model, alone: dict[tuple[str, int], tuple[int, ...]], max_num_batched_tokens: int, caching: bool
) -> None:
    core = make_core(model, max_num_batched_tokens=max_num_batched_tokens, enable_prefix_caching=caching)
    assert run(core, make_specs(8)) == alone


def test_answers_do_not_depend_on_preemption(model: Model, alone: dict[tuple[str, int], tuple[int, ...]]) -> None:
    core = make_core(model, num_blocks=16)
    assert run(core, make_specs(8)) == alone
    assert core.stats().preemptions > 0


@pytest.mark.parametrize("chunk", [1, 7])
def test_answers_do_not_depend_on_the_chunking(
    model: Model, alone: dict[tuple[str, int], tuple[int, ...]], chunk: int
) -> None:
    assert run(make_core(model, max_num_batched_tokens=chunk), make_specs(8)) == alone


def test_answers_do_not_depend_on_a_prefix_hit(model: Model, alone: dict[tuple[str, int], tuple[int, ...]]) -> None:
    core = make_core(model)
    run(core, make_specs(8))
    hits = core.stats().prefix_hit_tokens
    assert run(core, make_specs(8)) == alone
    assert core.stats().prefix_hit_tokens > hits


def test_answers_with_an_int8_cache_do_not_depend_on_any_of_this(model: Model) -> None:
    alone: dict[tuple[str, int], tuple[int, ...]] = {}
    for spec in make_specs(8):
        core = make_core(model, kv_cache_dtype="int8", max_num_seqs=1, enable_prefix_caching=False)
        alone |= run(core, [spec])
    for num_blocks, max_num_batched_tokens in ((64, 64), (64, 7), (16, 64)):
        core = make_core(
            model, num_blocks=num_blocks, kv_cache_dtype="int8", max_num_batched_tokens=max_num_batched_tokens
        )
        assert run(core, make_specs(8)) == alone
        assert run(core, make_specs(8)) == alone
        assert core.stats().prefix_hit_tokens > 0


def test_stop_tokens_are_not_drawn_before_min_tokens(model: Model) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=20)
    (free,) = run(make_core(model), [SequenceGroupSpec("a", [1, 2, 3], params)]).values()
    eager = SequenceGroupSpec("a", [1, 2, 3], params, eog_ids=frozenset(free[:1]))
    assert run(make_core(model), [eager]) == {("a", 0): ()}
    patient = replace(eager, sampling=replace(params, min_tokens=5))
    (tokens,) = run(make_core(model), [patient]).values()
    assert len(tokens) >= 5
    assert free[0] not in tokens


@pytest.mark.parametrize("dtype", ["f16", "int8"])
def test_logits_that_are_not_finite_cost_one_request(dtype: str) -> None:
    core = make_core(make_model(poisoned_token=95), kv_cache_dtype=dtype)
    params = SamplingParams(temperature=0.0, max_tokens=4, logit_bias={95: -100.0})
    core.add(SequenceGroupSpec("bad", [1, 95, 2], params))
    core.add(SequenceGroupSpec("good", [1, 2, 3], params))
    outputs: list[SequenceOutput] = []
    failures: dict[str, Exception] = {}
    while core.has_work:
        result = core.step()
        outputs.extend(result.outputs)
        failures.update(result.failures)
    assert list(failures) == ["bad"]
    assert [output.request_id for output in outputs] == ["good"] * 4
    core.check_idle()


def test_memory_is_touched_when_used_and_given_back(model: Model) -> None:
    config = EngineConfig(max_num_seqs=16, max_num_batched_tokens=64)
    runner = ModelRunner(model, 4096, config, VOCAB_SIZE)
    core = EngineCore(runner, config, max_model_len=MAX_MODEL_LEN, vocab_size=VOCAB_SIZE)
    assert runner.resident_kv_bytes() == 0
    run(core, make_specs(8))
    used = runner.resident_kv_bytes()
    assert 0 < used < runner.kv_cache.block_bytes * 64
    core.release_unused()
    assert runner.resident_kv_bytes() <= used
    core.release_all_free()
    assert runner.resident_kv_bytes() == 0


def test_memory_given_back_does_not_change_answers(model: Model, alone: dict[tuple[str, int], tuple[int, ...]]) -> None:
    core = make_core(model)
    run(core, make_specs(8))
    core.release_unused()
    assert run(core, make_specs(8)) == alone
    core.release_all_free()
    assert run(core, make_specs(8)) == alone


def test_logprobs_are_those_of_the_model_whatever_the_settings_and_the_company(model: Model) -> None:
    def ask(*others: SequenceGroupSpec, **params: Any) -> list[TokenLogprobs]:
        core = make_core(model)
        core.add(SequenceGroupSpec("asks", [1, 2, 3], SamplingParams(max_tokens=12, logprobs=5, **params)))
        for other in others:
            core.add(other)
        found: list[TokenLogprobs] = []
        while core.has_work:
            found += [each for output in core.step().outputs for each in output.logprobs if output.request_id == "asks"]
        return found

    greedy = ask(temperature=0.0)
    assert len(greedy) == 12
    for each in greedy:
        assert (each.token_id, each.logprob) == (each.top_ids[0], each.top_logprobs[0])
        assert list(each.top_logprobs) == sorted(each.top_logprobs, reverse=True)
        assert sum(math.exp(logprob) for logprob in each.top_logprobs) < 1
    assert ask(*make_specs(6), temperature=0.0) == greedy
    forced = ask(temperature=1.5, logit_bias={7: 100.0})
    assert {each.token_id for each in forced} == {7}
    assert (forced[0].top_ids, forced[0].top_logprobs) == (greedy[0].top_ids, greedy[0].top_logprobs)
    assert forced[0].logprob < greedy[0].logprob
