from __future__ import annotations

import pytest

from corral.engine.output import TokenLogprobs
from corral.engine.sequence import SequenceGroupSpec
from corral.errors import ContextLengthExceeded, InvalidConfig, InvalidRequest
from corral.histogram import Histogram
from corral.sampling_params import SamplingParams
from tests.support.fake_runner import FakeClock, FakeRunner, make_core


def make_spec(prompt: list[int], sampling: SamplingParams | None = None) -> SequenceGroupSpec:
    return SequenceGroupSpec("r", prompt, sampling or SamplingParams())


@pytest.mark.parametrize("num_tokens", [64, 65, 1000])
def test_a_prompt_that_fills_the_context_is_refused_with_the_numbers(num_tokens: int) -> None:
    core = make_core(FakeRunner(num_blocks=4), max_model_len=64)
    with pytest.raises(ContextLengthExceeded, match=f"{num_tokens} tokens; the context holds 64"):
        core.add(make_spec([1] * num_tokens))
    assert not core.has_work


def test_a_context_that_the_pool_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="max_model_len is 65; it must be from 2 to the 64 tokens"):
        make_core(FakeRunner(num_blocks=4), max_model_len=65)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no tokens"):
        make_core(FakeRunner()).add(make_spec([]))


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        (make_spec([1, 50]), "prompt"),
        (make_spec([1, -1]), "prompt"),
        (make_spec([1], SamplingParams(logit_bias={50: 1.0})), "logit_bias"),
        (make_spec([1], SamplingParams(stop_token_ids=(3, 1 << 30))), "stop_token_ids"),
    ],
)
def test_ids_outside_of_the_vocabulary_are_refused(spec: SequenceGroupSpec, param: str) -> None:
    with pytest.raises(InvalidRequest, match="ids go from 0 to 49") as caught:
        make_core(FakeRunner()).add(spec)
    assert caught.value.param == param


def test_a_request_id_in_use_is_refused() -> None:
    core = make_core(FakeRunner())
    core.add(make_spec([1]))
    with pytest.raises(InvalidRequest, match="in use"):
        core.add(make_spec([2]))


def test_a_seed_of_none_differs_from_request_to_request() -> None:
    answers = set()
    for _ in range(3):
        core = make_core(FakeRunner())
        core.add(make_spec([1, 2], SamplingParams(max_tokens=20)))
        tokens: list[int] = []
        while core.has_work:
            tokens.extend(t for output in core.step().outputs for t in output.new_token_ids)
        answers.add(tuple(tokens))
    assert len(answers) == 3


def test_stats_count_what_was_done() -> None:
    runner, clock = FakeRunner(num_blocks=8), FakeClock()
    runner.on_execute = lambda batch: setattr(clock, "now_s", clock.now_s + 0.25)
    core = make_core(runner, clock=clock)
    core.add(SequenceGroupSpec("r", [1] * 20, SamplingParams(n=2, max_tokens=3)))
    assert core.stats().num_waiting == 2
    core.step()
    stats = core.stats()
    assert (stats.num_running, stats.num_waiting, stats.prompt_tokens) == (2, 0, 20)
    while core.has_work:
        core.step()
    stats = core.stats()
    assert stats.generated_tokens == 6
    assert (stats.num_running, stats.num_used_blocks, stats.num_free_blocks) == (0, 0, 8)
    assert stats.num_cached_blocks == 1
    assert (stats.num_steps, stats.last_step_ms, stats.mean_step_ms) == (4, 250, 250)
    assert stats.total_step_ms == 1000


def test_slow_steps_shrink_the_prompts_part_beside_a_stream() -> None:
    runner, clock = FakeRunner(), FakeClock()
    core = make_core(runner, clock=clock)
    runner.on_execute = lambda batch: setattr(clock, "now_s", clock.now_s + 0.005 * batch.num_prefill_tokens + 0.01)
    core.add(SequenceGroupSpec("stream", [1] * 20, SamplingParams(max_tokens=60)))
    core.step()
    core.add(SequenceGroupSpec("prompt", [2] * 120, SamplingParams(max_tokens=1)))
    while core.has_work:
        core.step()
    beside_stream = [prefill for prefill, rows in runner.batches if rows and prefill]
    assert 20 <= max(beside_stream) <= 28  # 0.9 * 150 ms at 5 ms a token and 10 ms a step
    assert sum(beside_stream) == 120


def test_logprobs_are_looked_up_for_those_who_ask() -> None:
    runner = FakeRunner()
    core = make_core(runner)
    for name, logprobs in (("none", None), ("own", 0), ("three", 3)):
        core.add(SequenceGroupSpec(name, [1, 2], SamplingParams(temperature=0.0, max_tokens=4, logprobs=logprobs)))
    found: dict[str, list[TokenLogprobs]] = {"none": [], "own": [], "three": []}
    tokens: dict[str, list[int]] = {"none": [], "own": [], "three": []}
    while core.has_work:
        for output in core.step().outputs:
            found[output.request_id] += output.logprobs
            tokens[output.request_id] += output.new_token_ids
    assert found["none"] == []
    assert runner.num_logprobs == 8
    for name, num_top in (("own", 0), ("three", 3)):
        assert [each.token_id for each in found[name]] == tokens[name]
        assert [each.logprob for each in found[name]] == [-token_id / 100 for token_id in tokens[name]]
        assert {each.top_ids for each in found[name]} == {tuple(range(num_top))}


def test_a_stop_token_and_a_failed_row_have_no_logprobs() -> None:
    runner = FakeRunner(broken_requests={"bad"})
    core = make_core(runner)
    params = SamplingParams(temperature=0.0, max_tokens=4, logprobs=1)
    core.add(SequenceGroupSpec("bad", [1, 2], params))
    core.add(SequenceGroupSpec("stops", [1, 2], params, eog_ids=frozenset(range(50))))
    result = core.step()
    assert list(result.failures) == ["bad"]
    (output,) = result.outputs
    assert (output.new_token_ids, output.logprobs, runner.num_logprobs) == ((), (), 1)


def test_steps_are_counted_by_size_time_and_kind() -> None:
    runner, clock = FakeRunner(), FakeClock()
    core = make_core(runner, clock=clock)
    runner.on_execute = lambda batch: setattr(clock, "now_s", clock.now_s + (0.4 if batch.num_prefill_tokens else 0.02))
    core.add(make_spec([1] * 9, SamplingParams(max_tokens=3)))
    while core.has_work:
        core.step()
    stats = core.stats()
    assert (stats.num_steps, stats.num_decode_steps) == (3, 2)
    assert stats.decode_ms == pytest.approx(40)
    for histogram, values in (
        (stats.step_seconds, ((0.4, 1), (0.02, 2))),
        (stats.step_tokens, ((9.0, 1), (1.0, 2))),
    ):
        expected = Histogram(histogram.bounds)
        for value, times in values:
            expected.add(value, times)
        assert histogram.counts == expected.counts
        assert histogram.total == pytest.approx(expected.total)
    core.add(make_spec([2] * 9, SamplingParams(max_tokens=3)))
    core.step()
    assert stats.step_tokens.num_values == 3  # a snapshot


def test_an_output_tells_when_its_first_step_began() -> None:
    runner, clock = FakeRunner(), FakeClock()
    core = make_core(runner, clock=clock, max_num_batched_tokens=4)
    runner.on_execute = lambda batch: setattr(clock, "now_s", clock.now_s + 1)
    clock.now_s = 7.0
    core.add(make_spec([1] * 10, SamplingParams(max_tokens=2)))
    clock.now_s = 9.0
    begun = []
    while core.has_work:
        begun += [output.begun_at for output in core.step().outputs]
    assert begun == [9.0, 9.0]  # three steps of prefill
    assert clock.now_s == 13.0


def test_cached_blocks_that_are_given_away_are_counted() -> None:
    core = make_core(FakeRunner(num_blocks=4), max_model_len=64)
    for token in (1, 2):
        core.add(make_spec([token] * 49, SamplingParams(max_tokens=1)))
        while core.has_work:
            core.step()
    assert core.stats().evictions == 3
