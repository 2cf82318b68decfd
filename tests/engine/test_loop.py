from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from corral.config import EngineConfig
from corral.engine.core import EngineCore
from corral.engine.loop import EngineLoop, StepResult
from corral.engine.output import SequenceOutput
from corral.engine.sequence import SequenceGroupSpec
from corral.errors import CorralError, EngineDead, InvalidRequest, QueueFull, ServerDraining
from corral.request import FinishReason
from corral.sampling_params import SamplingParams
from tests.support.fake_runner import MAX_MODEL_LEN, VOCAB_SIZE, FakeClock, FakeRunner, expect

PATIENCE_S = 30.0


def make_spec(request_id: str, prompt_len: int = 20, **params: Any) -> SequenceGroupSpec:
    return SequenceGroupSpec(request_id, list(range(prompt_len)), SamplingParams(**({"temperature": 0.0} | params)))


class Stream:
    """What a caller gets, from a queue as a caller should keep it."""

    def __init__(self) -> None:
        self._results: queue.Queue[StepResult] = queue.Queue()

    def __call__(self, result: StepResult) -> None:
        self._results.put(result)

    def next(self) -> StepResult:
        return self._results.get(timeout=PATIENCE_S)

    def is_silent(self) -> bool:
        return self._results.empty()

    def read(self, num_sequences: int = 1) -> list[SequenceOutput]:
        """All outputs until each sequence has ended."""
        outputs: list[SequenceOutput] = []
        while sum(o.finish_reason is not None for o in outputs) < num_sequences:
            result = self.next()
            assert not isinstance(result, CorralError), result
            outputs.extend(result)
        return outputs


class Gate:
    """Holds the engine inside of its next step until the test lets it go on."""

    def __init__(self, runner: FakeRunner) -> None:
        self._entered, self._go = threading.Semaphore(0), threading.Semaphore(0)
        self._runner = runner
        runner.on_execute = self._hold

    def _hold(self, batch: object) -> None:
        self._entered.release()
        assert self._go.acquire(timeout=PATIENCE_S)

    def wait_for_step(self) -> None:
        assert self._entered.acquire(timeout=PATIENCE_S)

    def let_one_step_go(self) -> None:
        self._go.release()

    def open(self) -> None:
        self._runner.on_execute = None
        self._go.release()


MakeLoop = Callable[..., EngineLoop]


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def make_loop(runner: FakeRunner) -> Iterator[MakeLoop]:
    loops = []

    def make(clock: Callable[[], float] = time.monotonic, **options: Any) -> EngineLoop:
        config = EngineConfig(**({"max_num_seqs": 8, "max_num_batched_tokens": 64} | options))
        core = EngineCore(runner, config, max_model_len=MAX_MODEL_LEN, vocab_size=VOCAB_SIZE)
        loops.append(EngineLoop(core, config, clock=clock))
        return loops[-1]

    yield make
    runner.on_execute = runner.failure = None
    for loop in loops:
        loop.close()


def test_an_answer_comes_step_by_step(make_loop: MakeLoop) -> None:
    stream = Stream()
    spec = make_spec("a", max_tokens=10)
    make_loop().submit(spec, stream)
    outputs = stream.read()
    assert [len(o.new_token_ids) for o in outputs] == [1] * 10
    assert tuple(t for o in outputs for t in o.new_token_ids) == expect(spec, 0).token_ids


def test_answers_of_one_request_come_together(make_loop: MakeLoop, runner: FakeRunner) -> None:
    stream = Stream()
    make_loop().submit(make_spec("a", n=3, temperature=1.0, seed=1, max_tokens=4), stream)
    sizes: list[int] = []
    while sum(sizes) < 12:
        result = stream.next()
        assert isinstance(result, tuple)
        sizes.append(len(result))
    assert sizes == [1, 3, 3, 3, 2]


def test_many_threads_get_the_answers_they_would_get_alone(make_loop: MakeLoop) -> None:
    loop = make_loop(max_num_seqs=4, max_num_batched_tokens=16)
    answers: dict[int, tuple[int, ...]] = {}

    def ask(number: int) -> None:
        stream = Stream()
        loop.submit(make_spec(f"r{number}", 1 + number, max_tokens=12), stream)
        answers[number] = tuple(t for o in stream.read() for t in o.new_token_ids)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == {n: expect(make_spec("", 1 + n, max_tokens=12), 0).token_ids for n in range(40)}
    assert loop.drain(PATIENCE_S)
    assert loop.stats().num_used_blocks == 0


def test_an_abort_holds_from_the_next_step_on(make_loop: MakeLoop, runner: FakeRunner) -> None:
    gate, loop, stream = Gate(runner), make_loop(), Stream()
    loop.submit(make_spec("a", n=2), stream)
    gate.wait_for_step()
    loop.abort("a")
    loop.abort("a")
    gate.open()
    outputs = stream.read(2)
    assert [(o.index, o.finish_reason) for o in outputs] == [
        (0, None),
        (0, FinishReason.ABORT),
        (1, FinishReason.ABORT),
    ]
    assert loop.drain(PATIENCE_S)
    assert stream.is_silent()
    assert loop.stats().num_used_blocks == 0
    loop.abort("a")
    loop.abort("never seen")


def test_a_stop_string_ends_one_answer_of_a_request(make_loop: MakeLoop) -> None:
    loop, stream = make_loop(), Stream()

    def on_step(result: StepResult) -> None:
        if isinstance(result, tuple) and any(o.index == 1 and o.new_token_ids for o in result):
            loop.finish("a", 1)
        stream(result)

    spec = make_spec("a", n=2, temperature=1.0, seed=3, max_tokens=10)
    loop.submit(spec, on_step)
    outputs = stream.read(2)
    stopped = [o for o in outputs if o.index == 1]
    assert [o.finish_reason for o in stopped] == [None, FinishReason.STOP]
    assert stopped[-1].new_token_ids == ()
    assert tuple(t for o in outputs if o.index == 0 for t in o.new_token_ids) == expect(spec, 0).token_ids


def test_a_full_queue_refuses_and_says_when_to_come_back(make_loop: MakeLoop, runner: FakeRunner) -> None:
    gate, clock = Gate(runner), FakeClock()
    loop = make_loop(clock, max_num_seqs=2, max_queue=1)
    streams = [Stream() for _ in range(4)]
    loop.submit(make_spec("r0", max_tokens=1), streams[0])
    gate.wait_for_step()
    for i in (1, 2):
        loop.submit(make_spec(f"r{i}"), streams[i])
    with pytest.raises(QueueFull, match="3 sequences run or wait; new requests are taken below 3") as full:
        loop.submit(make_spec("r3"), streams[3])
    assert full.value.retry_after_s == 1
    clock.now_s = 100.0
    gate.let_one_step_go()
    streams[0].read()
    gate.wait_for_step()
    loop.submit(make_spec("r3"), streams[3])
    clock.now_s = 107.5  # one sequence has ended in the last 7.5 s
    with pytest.raises(QueueFull) as full:
        loop.submit(make_spec("r4"), Stream())
    assert full.value.retry_after_s == 8
    gate.open()
    for i in (1, 2, 3):
        loop.abort(f"r{i}")
        streams[i].read()


def test_what_can_never_run_is_refused_at_once(make_loop: MakeLoop) -> None:
    loop = make_loop()
    with pytest.raises(InvalidRequest, match="no tokens"):
        loop.submit(make_spec("a", 0), Stream())
    assert loop.drain(PATIENCE_S)


def test_a_request_id_in_use_is_refused_and_free_again_afterwards(make_loop: MakeLoop, runner: FakeRunner) -> None:
    gate, loop, stream = Gate(runner), make_loop(), Stream()
    loop.submit(make_spec("a", max_tokens=1), stream)
    with pytest.raises(InvalidRequest, match="in use"):
        loop.submit(make_spec("a"), Stream())
    gate.open()
    stream.read()
    loop.submit(make_spec("a", max_tokens=1), stream)
    stream.read()


def test_a_step_that_fails_wakes_every_waiter(
    make_loop: MakeLoop, runner: FakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    gate, loop = Gate(runner), make_loop(max_num_seqs=1)
    running, waiting = Stream(), Stream()
    loop.submit(make_spec("running"), running)
    gate.wait_for_step()
    loop.submit(make_spec("waiting"), waiting)
    runner.failure = RuntimeError("bad kernel")
    with caplog.at_level(logging.ERROR):
        gate.open()
        errors = [running.next(), waiting.next()]
    assert all(isinstance(error, EngineDead) and "bad kernel" in str(error) for error in errors)
    assert "Traceback" in caplog.text
    with pytest.raises(EngineDead, match="bad kernel"):
        loop.submit(make_spec("late"), Stream())
    with pytest.raises(EngineDead, match="bad kernel"):
        loop.drain(PATIENCE_S)
    assert not loop.is_alive
    loop.abort("running")


def test_a_drain_that_waits_learns_of_the_death(make_loop: MakeLoop, runner: FakeRunner) -> None:
    gate, loop = Gate(runner), make_loop()
    loop.submit(make_spec("a"), Stream())
    gate.wait_for_step()
    outcome: queue.Queue[object] = queue.Queue()

    def drain() -> None:
        try:
            outcome.put(loop.drain())
        except EngineDead as error:
            outcome.put(error)

    thread = threading.Thread(target=drain)
    thread.start()
    runner.failure = RuntimeError("bad kernel")
    gate.open()
    assert isinstance(outcome.get(timeout=PATIENCE_S), EngineDead)
    thread.join(PATIENCE_S)


def test_logits_that_are_not_finite_end_one_request_with_an_error(make_loop: MakeLoop, runner: FakeRunner) -> None:
    runner.broken_requests.add("bad")
    gate, loop, bad, good = Gate(runner), make_loop(), Stream(), Stream()
    loop.submit(make_spec("first", max_tokens=2), Stream())
    gate.wait_for_step()
    loop.submit(make_spec("bad", n=2), bad)
    loop.submit(make_spec("good", max_tokens=5), good)
    gate.open()
    error = bad.next()
    assert isinstance(error, CorralError)
    assert "not finite" in str(error)
    assert len(good.read()) == 5
    assert loop.drain(PATIENCE_S)
    assert bad.is_silent()


def test_a_callback_that_fails_costs_its_own_request_only(
    make_loop: MakeLoop, caplog: pytest.LogCaptureFixture
) -> None:
    loop, good = make_loop(), Stream()

    def fail(result: StepResult) -> None:
        raise ValueError("caller's fault")

    loop.submit(make_spec("bad"), fail)
    loop.submit(make_spec("good", max_tokens=5), good)
    assert len(good.read()) == 5
    assert loop.drain(PATIENCE_S)
    assert loop.is_alive
    assert "caller's fault" in caplog.text


def test_drain_finishes_what_runs_and_refuses_what_comes(make_loop: MakeLoop, runner: FakeRunner) -> None:
    gate, loop, stream = Gate(runner), make_loop(), Stream()
    loop.submit(make_spec("a", max_tokens=3), stream)
    gate.wait_for_step()
    assert not loop.drain(0)
    with pytest.raises(ServerDraining):
        loop.submit(make_spec("b"), Stream())
    gate.open()
    assert loop.drain()  # must be woken: a timeout would hide that it was not
    assert len(stream.read()) == 3
    loop.close()
    assert loop.drain(PATIENCE_S)


def test_close_aborts_what_is_left(make_loop: MakeLoop, runner: FakeRunner) -> None:
    gate, loop, stream = Gate(runner), make_loop(), Stream()
    loop.submit(make_spec("a"), stream)
    gate.wait_for_step()
    closer = threading.Thread(target=loop.close)
    closer.start()
    gate.open()
    closer.join(PATIENCE_S)
    assert stream.read()[-1].finish_reason is FinishReason.ABORT
    with pytest.raises(EngineDead, match="closed"):
        loop.submit(make_spec("b"), Stream())
    loop.close()


def test_memory_without_cached_tokens_is_given_back_when_idle(make_loop: MakeLoop, runner: FakeRunner) -> None:
    released: queue.Queue[list[int]] = queue.Queue()
    runner.on_release = released.put
    loop, stream = make_loop(kv_idle_release_s=3600), Stream()
    loop.submit(make_spec("a", 40, max_tokens=1), stream)
    stream.read()
    assert len(released.get(timeout=PATIENCE_S)) == 1
    assert loop.stats().num_cached_blocks == 2


def test_free_memory_goes_back_when_it_is_asked_for(make_loop: MakeLoop, runner: FakeRunner) -> None:
    loop, stream = make_loop(kv_idle_release_s=3600), Stream()
    loop.submit(make_spec("a", max_tokens=30), stream)
    stream.read()
    loop.release_free_blocks()
    assert len(set(runner.released)) == 4  # of 50 tokens, cached prefixes among them
    loop.close()
    loop.release_free_blocks()  # a loop that is closed has nothing left


@pytest.mark.parametrize("kv_idle_release_s", [0.0, 0.01])
def test_all_memory_is_given_back_after_a_long_idle(
    make_loop: MakeLoop, runner: FakeRunner, kv_idle_release_s: float
) -> None:
    released: queue.Queue[list[int]] = queue.Queue()
    runner.on_release = released.put
    loop, stream = make_loop(kv_idle_release_s=kv_idle_release_s), Stream()
    loop.submit(make_spec("a", 40, max_tokens=1), stream)
    stream.read()
    given_back = released.get(timeout=PATIENCE_S) + released.get(timeout=PATIENCE_S)
    assert len(given_back) == 3
    assert loop.stats().num_cached_blocks == 0
    loop.submit(make_spec("b", 40, max_tokens=1), stream)
    assert stream.read()[-1].num_cached_tokens == 0


def test_an_endless_idle_time_is_allowed(make_loop: MakeLoop) -> None:
    loop, stream = make_loop(kv_idle_release_s=float("inf")), Stream()
    loop.submit(make_spec("a", max_tokens=1), stream)
    stream.read()
    assert loop.drain(PATIENCE_S)
    assert loop.is_alive


def test_blocks_that_leaked_are_noticed_when_idle(make_loop: MakeLoop, runner: FakeRunner) -> None:
    gate, loop = Gate(runner), make_loop()
    loop.submit(make_spec("a", max_tokens=2), Stream())
    gate.wait_for_step()
    core: EngineCore = loop._core
    core._pool.allocate(1)
    gate.open()
    loop._thread.join(PATIENCE_S)
    with pytest.raises(EngineDead, match="1 of 64 blocks leaked"):
        loop.submit(make_spec("b"), Stream())


def test_an_idle_engine_blocks_and_does_not_poll(
    make_loop: MakeLoop, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, loop, stream = Gate(runner), make_loop(kv_idle_release_s=3600.0), Stream()
    loop.submit(make_spec("a", max_tokens=1), stream)
    gate.wait_for_step()
    waits: list[float | None] = []
    parked = threading.Event()
    wait_for = loop._changed.wait_for

    def watch(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        waits.append(timeout)
        parked.set()
        return wait_for(predicate, timeout)

    monkeypatch.setattr(loop._changed, "wait_for", watch)
    gate.open()
    stream.read()
    assert parked.wait(PATIENCE_S)
    loop.abort("a")  # has ended: does not even wake the thread
    assert waits == [3600.0]
