"""A pool far too small for its requests: everybody still gets the answer they would get alone, and nobody starves."""

from __future__ import annotations

import random

import pytest

from corral.engine.core import EngineCore
from corral.engine.sequence import SequenceGroupSpec
from corral.sampling_params import SamplingParams
from tests.support.fake_runner import FakeRunner, expect, make_core

STEMS = [[(5 * i + stem) % 50 for i in range(80)] for stem in range(3)]


def random_spec(rng: random.Random, request_id: str) -> SequenceGroupSpec:
    prompt = rng.choice(STEMS)[: rng.randint(1, 60)] + [rng.randrange(50) for _ in range(rng.choice([0, 0, 3, 16]))]
    greedy = rng.random() < 0.5
    params = SamplingParams(
        n=rng.choice([1, 1, 2, 4]),
        temperature=0.0 if greedy else 1.0,
        seed=None if greedy else rng.randrange(3),
        max_tokens=rng.choice([1, 10, 40, 60]),
    )
    return SequenceGroupSpec(request_id, prompt, params, frozenset({rng.randrange(50)}), rng.choice(["", "other"]))


def run_all(core: EngineCore, specs: dict[str, SequenceGroupSpec], rng: random.Random) -> None:
    """Add the requests a few at a time, abort some, and hold every answer against the undisturbed one."""
    pending = list(specs)
    tokens: dict[tuple[str, int], list[int]] = {}
    for _ in range(100_000):
        while pending and rng.random() < 0.5:
            request_id = pending.pop(0)
            core.add(specs[request_id])
            tokens.update({(request_id, i): [] for i in range(specs[request_id].sampling.n)})
        if tokens and rng.random() < 0.02:
            for output in core.abort(rng.choice(sorted(tokens))[0]):
                del tokens[output.request_id, output.index]
        if core.has_work:
            for output in core.step().outputs:
                key = (output.request_id, output.index)
                tokens[key].extend(output.new_token_ids)
                if output.finish_reason is not None:
                    expected = expect(specs[output.request_id], output.index)
                    assert (tuple(tokens[key]), output.finish_reason, output.stop_token) == (
                        expected.token_ids,
                        expected.finish_reason,
                        expected.stop_token,
                    )
                    del tokens[key]
            core.check_integrity()
        elif not pending:
            break
    assert not pending, "starved"
    assert not tokens, "starved"
    core.check_idle()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("caching", [True, False], ids=["caching", "no caching"])
def test_answers_are_those_of_an_engine_alone(seed: int, caching: bool) -> None:
    rng = random.Random(seed)
    runner = FakeRunner(num_blocks=rng.randint(8, 16))
    core = make_core(
        runner,
        max_num_seqs=rng.choice([4, 8, 16]),
        max_num_batched_tokens=rng.choice([8, 24, 64]),
        enable_prefix_caching=caching,
    )
    run_all(core, {f"r{i}": random_spec(rng, f"r{i}") for i in range(30)}, rng)
    stats = core.stats()
    assert stats.preemptions > 0, "the pool was meant to be too small"
    assert runner.num_copied > 0
    assert (stats.prefix_hit_tokens > 0) == caching
