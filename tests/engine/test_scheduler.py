from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from corral.config import BLOCK_SIZE
from corral.engine.block_pool import BlockPool
from corral.engine.budget import StepBudget
from corral.engine.core import EngineCore
from corral.engine.output import SequenceOutput
from corral.engine.scheduler import Scheduler
from corral.engine.sequence import SequenceGroup, SequenceGroupSpec
from corral.request import FinishReason
from corral.sampling_params import SamplingParams
from tests.support.fake_runner import VOCAB_SIZE, FakeRunner, expect, make_core


def make_spec(request_id: str, prompt_len: int, *, first: int = 0, eog: Sequence[int] = (), **params: Any) -> Any:
    prompt = [(first + i) % VOCAB_SIZE for i in range(prompt_len)]
    sampling = SamplingParams(**({"temperature": 0.0} | params))
    return SequenceGroupSpec(request_id, prompt, sampling, frozenset(eog))


def run(core: EngineCore) -> dict[tuple[str, int], list[SequenceOutput]]:
    """Step until there is no work; outputs by sequence."""
    outputs: dict[tuple[str, int], list[SequenceOutput]] = {}
    while core.has_work:
        for output in core.step().outputs:
            outputs.setdefault((output.request_id, output.index), []).append(output)
        core.check_integrity()
    core.check_idle()
    return outputs


def tokens_of(outputs: list[SequenceOutput]) -> tuple[int, ...]:
    return tuple(token_id for output in outputs for token_id in output.new_token_ids)


def test_prompts_and_streams_share_a_step() -> None:
    runner = FakeRunner()
    core = make_core(runner, max_num_batched_tokens=32)
    core.add(make_spec("a", 20, max_tokens=8))
    core.step()
    core.add(make_spec("b", 20, first=30, max_tokens=8))
    core.step()
    assert runner.batches == [(20, 0), (20, 1)]


def test_a_long_prompt_never_costs_a_stream_its_turn() -> None:
    runner = FakeRunner()
    core = make_core(runner, max_num_batched_tokens=8)
    core.add(make_spec("long", 100, max_tokens=1))
    core.step()
    core.add(make_spec("short", 1, first=40, max_tokens=20))
    tokens_while_prefilling = 0
    while core.stats().generated_tokens == tokens_while_prefilling:
        tokens_while_prefilling += sum(len(o.new_token_ids) for o in core.step().outputs if o.request_id == "short")
    decode_rows = [rows for _, rows in runner.batches]
    first_decode = decode_rows.index(1)
    assert all(rows == 1 for rows in decode_rows[first_decode:])
    run(core)


@pytest.mark.parametrize("max_num_batched_tokens", [1, 7, 64])
def test_every_chunking_gives_the_same_tokens(max_num_batched_tokens: int) -> None:
    spec = make_spec("a", 70, max_tokens=30)
    core = make_core(FakeRunner(), max_num_batched_tokens=max_num_batched_tokens)
    core.add(spec)
    assert tokens_of(run(core)["a", 0]) == expect(spec, 0).token_ids


def test_requests_are_served_in_order_of_arrival() -> None:
    core = make_core(FakeRunner(), max_num_seqs=1)
    for name in "abc":
        core.add(make_spec(name, 5, max_tokens=3))
    assert [name for name, _ in run(core)] == ["a", "b", "c"]


def test_a_past_prompt_is_not_computed_again_but_for_its_last_token() -> None:
    runner = FakeRunner()
    core = make_core(runner)
    core.add(make_spec("a", 4 * BLOCK_SIZE, max_tokens=1))
    run(core)
    computed = runner.num_computed
    core.add(make_spec("b", 4 * BLOCK_SIZE, max_tokens=1))
    (output,) = run(core)["b", 0]
    assert output.num_cached_tokens == 3 * BLOCK_SIZE
    assert output.num_prompt_tokens == 4 * BLOCK_SIZE
    assert runner.num_computed - computed == BLOCK_SIZE
    assert core.stats().prefix_hit_tokens == 3 * BLOCK_SIZE


def test_an_answer_is_a_prefix_of_the_next_turn() -> None:
    core = make_core(FakeRunner())
    first = make_spec("a", 20, max_tokens=20)
    core.add(first)
    turn = [*first.prompt_ids, *tokens_of(run(core)["a", 0])]
    core.add(SequenceGroupSpec("b", [*turn, 1, 2, 3], SamplingParams(temperature=0.0, max_tokens=1)))
    assert run(core)["b", 0][0].num_cached_tokens == len(turn) // BLOCK_SIZE * BLOCK_SIZE


def test_tenants_with_other_salts_share_nothing() -> None:
    core = make_core(FakeRunner())
    core.add(make_spec("a", 40, max_tokens=1))
    run(core)
    spec = make_spec("b", 40, max_tokens=1)
    core.add(SequenceGroupSpec("b", spec.prompt_ids, spec.sampling, cache_salt="tenant"))
    assert run(core)["b", 0][0].num_cached_tokens == 0


@pytest.mark.parametrize("prompt_len", [1, 2, 15, 16, 17, 31, 32, 33, 40])
@pytest.mark.parametrize("max_num_seqs", [2, 8])
def test_siblings_compute_one_token_of_the_prompt_each(prompt_len: int, max_num_seqs: int) -> None:
    spec = make_spec("a", prompt_len, n=4, temperature=1.0, seed=7, max_tokens=20)
    runner = FakeRunner()
    core = make_core(runner, max_num_seqs=max_num_seqs, enable_prefix_caching=False)
    core.add(spec)
    outputs = run(core)
    for index in range(4):
        assert tokens_of(outputs["a", index]) == expect(spec, index).token_ids
    assert len({tokens_of(outputs["a", index]) for index in range(4)}) == 4
    assert runner.num_computed == prompt_len + 3 + 4 * 19
    assert runner.num_copied > 0


def test_siblings_share_the_blocks_of_their_prompt() -> None:
    core = make_core(FakeRunner())
    core.add(make_spec("a", 40, n=4, temperature=1.0, seed=7, max_tokens=4))
    core.step()
    core.step()
    # Two full blocks shared by all, and a last one each.
    assert core.stats().num_used_blocks == 2 + 4


def test_a_sibling_inherits_the_work_of_a_leader_stopped_in_its_prompt() -> None:
    spec = make_spec("a", 100, n=3, temperature=1.0, seed=7, max_tokens=5)
    runner = FakeRunner()
    core = make_core(runner, max_num_batched_tokens=32)
    core.add(spec)
    core.step()
    (ended,) = core.finish("a", 0)
    assert (ended.index, ended.finish_reason) == (0, FinishReason.STOP)
    core.check_integrity()
    outputs = run(core)
    assert {index for _, index in outputs} == {1, 2}
    assert all(tokens_of(outputs["a", index]) == expect(spec, index).token_ids for index in (1, 2))
    assert runner.num_computed == 100 + 1 + 2 * 4


def test_a_sibling_takes_the_place_of_a_leader_stopped_in_the_queue() -> None:
    core = make_core(FakeRunner(), max_num_seqs=1)
    for name in ("first", "group", "last"):
        core.add(make_spec(name, 5, n=2 if name == "group" else 1, temperature=1.0, seed=1, max_tokens=2))
    core.finish("group", 0)
    core.check_integrity()
    assert list(run(core)) == [("first", 0), ("group", 1), ("last", 0)]


def test_stopping_held_siblings_and_then_the_leader_ends_the_request() -> None:
    core = make_core(FakeRunner())
    core.add(make_spec("a", 20, n=3))
    for index in (2, 1, 0):
        core.finish("a", index)
        core.check_integrity()
    assert not core.has_work


def test_aborting_frees_every_block_and_tells_each_sequence_once() -> None:
    core = make_core(FakeRunner(), max_num_batched_tokens=16)
    core.add(make_spec("a", 40, n=3))
    core.step()
    assert [(o.index, o.finish_reason) for o in core.abort("a")] == [(2 - i, FinishReason.ABORT) for i in (2, 1, 0)]
    assert core.abort("a") == []
    assert core.abort("unknown") == []
    core.check_idle()


def test_the_youngest_is_preempted_and_answers_as_if_it_had_not_been() -> None:
    specs = [make_spec(name, 30, first=10 * i, max_tokens=60) for i, name in enumerate("abc")]
    core = make_core(FakeRunner(num_blocks=10))
    for spec in specs:
        core.add(spec)
    outputs = run(core)
    assert core.stats().preemptions > 0
    for spec in specs:
        assert tokens_of(outputs[spec.request_id, 0]) == expect(spec, 0).token_ids
    last_steps = [outputs[name, 0][-1].finish_reason for name in "abc"]
    assert last_steps == [FinishReason.LENGTH] * 3


def test_the_oldest_is_never_preempted() -> None:
    core = make_core(FakeRunner(num_blocks=8))
    for i in range(6):
        core.add(make_spec(f"r{i}", 30, first=7 * i, max_tokens=60))
    ends: list[str] = []
    while core.has_work:
        outputs = core.step().outputs
        if not ends:
            assert outputs, "the oldest gains a token every step"
            assert outputs[0].request_id == "r0"
        ends.extend(o.request_id for o in outputs if o.finish_reason)
    assert ends[0] == "r0"


def test_siblings_that_find_no_place_start_in_order() -> None:
    core = make_core(FakeRunner(), max_num_seqs=2)
    core.add(make_spec("a", 20, n=5, temperature=1.0, seed=7, max_tokens=4))
    assert [index for _, index in run(core)] == [0, 1, 2, 3, 4]


def test_the_preempted_waits_for_a_later_step_in_front_of_all_others() -> None:
    runner = FakeRunner(num_blocks=8)
    core = make_core(runner)
    steps: list[list[str]] = []
    runner.on_execute = lambda batch: steps.append([row.sequence.group.request_id for row in batch.rows])
    for i, name in enumerate("abc"):
        core.add(make_spec(name, 40, first=10 * i, max_tokens=40))
    while core.stats().preemptions == 0:
        core.step()
    assert steps[-2] == ["a", "b"]
    assert steps[-1] == ["a"], "the blocks of b are for a: nobody is let in at once"
    assert core.stats().num_waiting == 2
    run(core)
    starts = list(dict.fromkeys(name for step in steps[steps.index(["a"], 2) + 1 :] for name in step))
    assert starts == ["a", "b", "c"]


def test_memory_is_used_in_proportion_to_tokens() -> None:
    core = make_core(FakeRunner())
    core.add(make_spec("a", 20, max_tokens=100))
    core.step()
    assert core.stats().num_used_blocks == 2


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it() -> None:
    free_running = expect(make_spec("a", 20, max_tokens=30), 0).token_ids
    stop = free_running[10]
    for spec in (
        make_spec("a", 20, eog=[stop], max_tokens=30),
        make_spec("a", 20, stop_token_ids=(stop,), ignore_eos=True, eog=[free_running[0]], max_tokens=30),
    ):
        core = make_core(FakeRunner())
        core.add(spec)
        outputs = run(core)["a", 0]
        assert tokens_of(outputs) == free_running[: free_running.index(stop)]
        assert (outputs[-1].finish_reason, outputs[-1].stop_token) == (FinishReason.STOP, stop)


def test_a_full_context_ends_the_answer() -> None:
    core = make_core(FakeRunner(num_blocks=2), max_model_len=32)
    core.add(make_spec("a", 20))
    outputs = run(core)["a", 0]
    assert len(tokens_of(outputs)) == 12
    assert outputs[-1].finish_reason is FinishReason.LENGTH


def test_logits_that_are_not_finite_cost_their_own_request_only() -> None:
    runner = FakeRunner(broken_requests={"bad"})
    core = make_core(runner)
    good = make_spec("good", 40, first=3, max_tokens=5)
    core.add(make_spec("bad", 40, n=2, max_tokens=5))
    core.add(good)
    result = core.step()
    assert list(result.failures) == ["bad"]
    assert "not finite" in str(result.failures["bad"])
    core.check_integrity()
    runner.broken_requests.clear()
    core.add(make_spec("again", 40, max_tokens=5))
    outputs = run(core)
    assert outputs["again", 0][0].num_cached_tokens == 0
    assert {name for name, _ in outputs} == {"good", "again"}


class CountingList:
    """Stands in for the queue of waiting sequences and counts what is done to it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._queue, self.num_operations = scheduler.waiting, 0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Any:
        raise AssertionError("a step must not walk the queue")

    def __getattr__(self, name: str) -> Any:
        self.num_operations += 1
        return getattr(self._queue, name)


@pytest.mark.parametrize("num_waiting", [10, 1_000, 10_000])
def test_a_step_costs_the_same_however_many_wait(num_waiting: int) -> None:
    scheduler = Scheduler(BlockPool(4), StepBudget(64, 150), max_running=1)
    for i in range(num_waiting + 1):
        spec = make_spec(f"r{i}", 5, max_tokens=50)
        scheduler.add(SequenceGroup(spec, first_seq_id=i, max_model_len=64, vocab_size=VOCAB_SIZE))
    scheduler.update(scheduler.schedule(), [1])
    queue = CountingList(scheduler)
    scheduler.waiting = queue  # type: ignore[assignment]
    for _ in range(10):
        scheduler.update(scheduler.schedule(), [1])
    scheduler.abort(f"r{num_waiting // 2}")
    assert queue.num_operations == 1, "one removal, by the abort"
