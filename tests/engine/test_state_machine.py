"""Scheduler and block pool under random adds, steps, aborts, stops, preemptions and evictions.

Whatever happens in between, every answer equals the one that its request gets alone, every KV slot read was written by
the reader's own history, and the books balance after every action.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corral.engine.core import EngineCore
from corral.engine.sequence import SequenceGroupSpec
from corral.request import FinishReason
from corral.sampling_params import SamplingParams
from tests.support.fake_runner import FakeClock, FakeRunner, expect, make_core

# Prompts grow out of a few stems, so that most requests share a prefix with another, often up to a block's edge.
STEMS = [[(7 * i + stem) % 50 for i in range(96)] for stem in range(3)]
MAX_MODEL_LEN = 96


@st.composite
def group_specs(draw: st.DrawFn) -> SequenceGroupSpec:
    stem = draw(st.sampled_from(STEMS))
    shared = draw(st.sampled_from([32, 1, 5, 15, 16, 17, 31, 33, 48, 64]))
    tail = draw(st.lists(st.integers(0, 49), max_size=20))
    seed = draw(st.sampled_from([None, 1, 2]))
    params = SamplingParams(
        n=draw(st.sampled_from([2, 1, 1, 3, 5])),
        temperature=0.0 if seed is None else 1.0,
        seed=seed,
        max_tokens=draw(st.sampled_from([40, None, 16, 2, 1])),
    )
    eog_ids = draw(st.sampled_from([frozenset[int](), frozenset({3}), frozenset({3, 11, 12, 13})]))
    return SequenceGroupSpec(
        "",
        stem[:shared] + tail,
        params,
        eog_ids,
        draw(st.sampled_from(["", "", "other"])),
        tenant=draw(st.sampled_from(["", "", "", "a", "b"])),
        weight=draw(st.sampled_from([1.0, 1.0, 0.5, 4.0])),
        priority=draw(st.sampled_from([0, 0, 0, -1, 1])),
    )


SPECS = group_specs()


class EngineMachine(RuleBasedStateMachine):
    runner: FakeRunner
    core: EngineCore
    clock: FakeClock

    @initialize(
        num_blocks=st.integers(6, 14),
        max_num_seqs=st.integers(1, 8),
        max_num_batched_tokens=st.sampled_from([48, 16, 7, 3, 1]),
        caching=st.booleans(),
    )
    def start(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int, caching: bool) -> None:
        self.runner = FakeRunner(num_blocks)
        self.clock = FakeClock()
        self.core = make_core(
            self.runner,
            max_model_len=MAX_MODEL_LEN,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            enable_prefix_caching=caching,
            clock=self.clock,
        )
        self.runner.on_execute = lambda batch: self._pass_time(batch.num_prefill_tokens + batch.num_decode_rows)
        self.ms_per_token = 1.0
        self.specs: dict[str, SequenceGroupSpec] = {}
        self.open: dict[tuple[str, int], list[int]] = {}  # (request, index) -> tokens so far

    def _pass_time(self, num_tokens: int) -> None:
        self.clock.now_s += num_tokens * self.ms_per_token / 1000

    @rule(specs=st.lists(SPECS, min_size=1, max_size=5))
    def add(self, specs: list[SequenceGroupSpec]) -> None:
        for template in specs:
            spec = replace(template, request_id=f"r{len(self.specs)}")
            self.core.add(spec)
            self.specs[spec.request_id] = spec
            self.open.update({(spec.request_id, index): [] for index in range(spec.sampling.n)})

    @precondition(lambda self: self.core.has_work)
    @rule(num_steps=st.sampled_from([8, 1, 30]), ms_per_token=st.sampled_from([0.0, 1.0, 100.0]))
    def step(self, num_steps: int, ms_per_token: float) -> None:
        self.ms_per_token = ms_per_token
        for _ in range(num_steps):
            if self.core.has_work:
                self._take_step()
                self.core.check_integrity()

    def _take_step(self) -> None:
        result = self.core.step()
        assert not result.failures
        for output in result.outputs:
            key = (output.request_id, output.index)
            tokens = self.open[key]
            tokens.extend(output.new_token_ids)
            expected = expect(self.specs[output.request_id], output.index, MAX_MODEL_LEN)
            assert tuple(tokens) == expected.token_ids[: len(tokens)]
            if output.finish_reason is not None:
                assert tuple(tokens) == expected.token_ids
                assert (output.finish_reason, output.stop_token) == (expected.finish_reason, expected.stop_token)
                del self.open[key]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        request_id, _ = data.draw(st.sampled_from(sorted(self.open)))
        ended = {(o.request_id, o.index) for o in self.core.abort(request_id)}
        assert ended == {key for key in self.open if key[0] == request_id}
        for key in ended:
            del self.open[key]
        assert self.core.abort(request_id) == []

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish_one(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.open)))
        (output,) = self.core.finish(*key)
        assert output.finish_reason is FinishReason.STOP
        assert output.new_token_ids == ()
        assert self.core.finish(*key) == []
        del self.open[key]

    @rule(drop_prefixes=st.booleans())
    def release(self, drop_prefixes: bool) -> None:
        if drop_prefixes:
            self.core.release_all_free()
        else:
            self.core.release_unused()

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "core"):
            self.core.check_integrity()
            assert self.core.has_work == bool(self.open)

    def teardown(self) -> None:
        """Everything ends in bounded time, and then nobody holds a block."""
        if not hasattr(self, "core"):
            return
        for _ in range(20_000):
            if not self.core.has_work:
                break
            self._take_step()
        assert not self.open, "starved"
        self.core.check_integrity()
        self.core.check_idle()


EngineMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,  # a busy machine is no fault
    suppress_health_check=[HealthCheck.too_slow],
)
TestEngineMachine = EngineMachine.TestCase
