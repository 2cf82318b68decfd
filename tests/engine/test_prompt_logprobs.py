"""How likely a prompt's own tokens are, over the native core."""

from __future__ import annotations

from typing import Any

import pytest

from corral._native import Model
from corral.engine.core import EngineCore
from corral.engine.output import TokenLogprobs
from corral.engine.sequence import SequenceGroupSpec
from corral.sampling_params import SamplingParams
from tests.support.tiny_engine import make_core, make_model


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model()


def told(core: EngineCore, *specs: SequenceGroupSpec) -> dict[str, list[tuple[TokenLogprobs, ...]]]:
    """What each request was told of its prompt, output by output."""
    found: dict[str, list[tuple[TokenLogprobs, ...]]] = {}
    for spec in specs:
        core.add(spec)
    while core.has_work:
        result = core.step()
        assert not result.failures
        for output in result.outputs:
            found.setdefault(output.request_id, []).append(output.prompt_logprobs)
        core.check_integrity()
    core.check_idle()
    return found


def scored(name: str, prompt: list[int], **params: Any) -> SequenceGroupSpec:
    return SequenceGroupSpec(name, prompt, SamplingParams(**({"max_tokens": 3, "prompt_logprobs": 2} | params)))


@pytest.fixture(scope="module")
def text(model: Model) -> tuple[list[int], list[TokenLogprobs]]:
    """A seeded answer with the logprobs of its tokens as they were drawn, behind a prompt of 5."""
    core = make_core(model)
    core.add(SequenceGroupSpec("r", [1, 2, 3, 4, 5], SamplingParams(seed=8, max_tokens=70, logprobs=2)))
    outputs = []
    while core.has_work:
        outputs += core.step().outputs
    drawn = [each for output in outputs for each in output.logprobs]
    return [1, 2, 3, 4, 5, *(each.token_id for each in drawn)], drawn


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_num_batched_tokens": 256},
        {"max_num_batched_tokens": 7},
        {"max_num_seqs": 1},
    ],
    ids=str,
)
def test_they_are_those_of_the_same_tokens_when_drawn(
    model: Model, text: tuple[list[int], list[TokenLogprobs]], options: dict[str, Any]
) -> None:
    prompt, drawn = text
    [outputs] = told(make_core(model, **options), scored("r", prompt)).values()
    assert len(outputs[0]) == len(prompt) - 1
    assert list(outputs[0][4:]) == drawn
    assert outputs[1:] == [(), ()]


def test_company_caching_and_preemption_change_none(model: Model, text: tuple[list[int], list[TokenLogprobs]]) -> None:
    prompt, drawn = text
    core = make_core(model, num_blocks=8, max_model_len=128)
    for _ in range(2):  # the second time all blocks are cached: they are computed again
        found = told(
            core,
            SequenceGroupSpec("other", prompt[:30], SamplingParams(max_tokens=60, seed=1)),
            scored("a", prompt, n=2),
            scored("b", prompt[:40]),
            scored("c", [9]),
            SequenceGroupSpec("plain", prompt, SamplingParams(max_tokens=60, seed=2)),
        )
        assert [list(each)[4:] for each in found["a"] if each] == [drawn]
        assert [list(each)[4:] for each in found["b"] if each] == [drawn[:35]]
        assert not any(found["c"] + found["other"] + found["plain"])
    assert core.stats().preemptions > 0


def test_many_at_once_are_all_told(model: Model, text: tuple[list[int], list[TokenLogprobs]]) -> None:
    prompt, drawn = text
    core = make_core(model, max_num_seqs=4, num_blocks=64)
    found = told(core, *(scored(f"r{i}", prompt[: 20 + i], max_tokens=1) for i in range(12)))
    for i in range(12):
        assert list(found[f"r{i}"][0][4:]) == drawn[: 15 + i]
