"""The loop's queue: places, deadlines and the bounds of tenants."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from corral.config import EngineConfig
from corral.engine.core import EngineCore
from corral.engine.loop import PLACES_S, EngineLoop
from corral.engine.sequence import SequenceGroupSpec
from corral.errors import CorralError, DeadlineExceeded, QueueFull, TenantQueueFull, WaitTooLong
from corral.request import QueuePlace
from corral.sampling_params import SamplingParams
from tests.engine.test_loop import PATIENCE_S, Gate, Stream
from tests.support.fake_runner import MAX_MODEL_LEN, VOCAB_SIZE, FakeClock, FakeRunner


class Places:
    """What a caller is told of its place."""

    def __init__(self) -> None:
        self._places: queue.Queue[QueuePlace] = queue.Queue()

    def __call__(self, place: QueuePlace) -> None:
        self._places.put(place)

    def next(self) -> QueuePlace:
        return self._places.get(timeout=PATIENCE_S)

    @property
    def is_silent(self) -> bool:
        return self._places.empty()


class Stage:
    """A loop of one place whose engine is held in every step, and whose time stands still."""

    def __init__(self) -> None:
        self.runner, self.clock = FakeRunner(), FakeClock()
        self.gate = Gate(self.runner)
        config = EngineConfig(max_num_seqs=1, max_num_batched_tokens=64, max_queue=4)
        core = EngineCore(self.runner, config, max_model_len=MAX_MODEL_LEN, vocab_size=VOCAB_SIZE)
        self.loop = EngineLoop(core, config, clock=self.clock)

    def submit(self, request_id: str, places: Places | None = None, *, max_tokens: int = 50, **options: Any) -> Stream:
        stream = Stream()
        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        spec = SequenceGroupSpec(request_id, list(range(20)), sampling, **options)
        self.loop.submit(spec, stream, places)
        return stream

    def step(self) -> None:
        """Lets the step end that the engine is in, and waits for the next one."""
        self.gate.let_one_step_go()
        self.gate.wait_for_step()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.gate.open()
    stage.loop.close()


def test_who_waits_is_told_of_its_place_and_of_each_new_one(stage: Stage) -> None:
    places = [Places() for _ in range(3)]
    first = stage.submit("r0", places[0], max_tokens=2)
    stage.gate.wait_for_step()
    stage.submit("r1", places[1])
    stage.submit("r2", places[2])
    assert places[1].next() == QueuePlace(0)
    assert places[2].next() == QueuePlace(1)
    stage.step()
    stage.clock.now_s += PLACES_S
    stage.step()
    first.read()
    stage.clock.now_s += PLACES_S
    stage.step()
    assert places[2].next().position == 0
    assert all(each.is_silent for each in places), "one that starts at once, and one whose place is the same"


def test_the_expected_wait_comes_with_the_place(stage: Stage) -> None:
    last = Places()
    streams = [stage.submit(f"r{i}", last if i == 4 else None, max_tokens=1) for i in range(5)]
    stage.gate.wait_for_step()
    for stream in streams[:3]:
        stage.clock.now_s += 2.0
        stage.step()
        stream.read()
    assert [last.next() for _ in range(3)] == [QueuePlace(3), QueuePlace(2, 6.0), QueuePlace(1, 4.0)]


def test_queued_work_is_dropped_at_its_deadline_and_never_started(stage: Stage) -> None:
    stage.submit("runs")
    stage.gate.wait_for_step()
    late = stage.submit("late", deadline=10.0)
    stage.step()
    assert late.is_silent()
    stage.clock.now_s = 10.0
    stage.step()
    assert isinstance(late.next(), DeadlineExceeded)
    assert stage.loop.stats().num_waiting == 0


def test_running_work_ends_at_its_deadline(stage: Stage) -> None:
    stream = stage.submit("runs", deadline=10.0)
    stage.gate.wait_for_step()
    stage.step()
    assert not isinstance(stream.next(), CorralError)
    stage.clock.now_s = 11.0
    stage.submit("next")
    stage.step()
    results = [stream.next()]
    while not isinstance(results[-1], CorralError):
        results.append(stream.next())
    assert isinstance(results[-1], DeadlineExceeded)
    assert stage.loop.stats().num_running == 1, "the next one"


def test_what_is_too_late_already_is_refused(stage: Stage) -> None:
    stage.clock.now_s = 5.0
    with pytest.raises(DeadlineExceeded):
        stage.submit("late", deadline=5.0)


def test_what_would_wait_beyond_its_deadline_is_refused(stage: Stage) -> None:
    streams = [stage.submit(f"r{i}", max_tokens=1) for i in range(4)]
    stage.gate.wait_for_step()
    for stream in streams[:2]:
        stage.clock.now_s += 10.0
        stage.step()
        stream.read()
    with pytest.raises(WaitTooLong, match="would wait for about"):
        stage.submit("hasty", deadline=stage.clock.now_s + 1.0)
    stage.submit("patient", deadline=stage.clock.now_s + 100.0)


def test_deadlines_of_what_has_ended_are_forgotten(stage: Stage) -> None:
    stage.gate.open()
    for i in range(500):
        stage.submit(f"r{i}", max_tokens=1, deadline=1e6).read()
    assert len(stage.loop._deadlines) <= 100


def test_one_key_leaves_room_in_the_queue_for_others(stage: Stage) -> None:
    stage.submit("a0", tenant="a")
    stage.gate.wait_for_step()
    for i in (1, 2):
        stage.submit(f"a{i}", tenant="a")
    with pytest.raises(TenantQueueFull):
        stage.submit("a3", tenant="a")
    for i in range(2):
        stage.submit(f"b{i}", tenant="b")
    with pytest.raises(QueueFull) as full:
        stage.submit("b2", tenant="b")
    assert not isinstance(full.value, TenantQueueFull)
