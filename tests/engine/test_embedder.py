"""The embedder over a runner whose K and V tell on whoever spoils them; hidden states are made of the whole history."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.config import EngineConfig
from corral.engine.batch import Batch
from corral.engine.embedder import Embedder, EmbeddingResult, EmbeddingSpec
from corral.engine.pooling import normalized
from corral.errors import CorralError, InsufficientMemory, InvalidRequest
from corral.model.plan import EmbeddingShape
from tests.support.fake_runner import FakeClock

F32 = npt.NDArray[np.float32]
VOCAB_SIZE = 50
HIDDEN = 3


class FakeHiddenRunner:
    """The hidden state of position p is [token, sum of the tokens that it sees, p]."""

    def __init__(self, shape: EmbeddingShape, *, is_causal: bool) -> None:
        self.shape = shape
        self.is_causal = is_causal
        self.slots = np.full((shape.num_blocks, 16), -1)
        self.steps: list[list[int]] = []  # tokens of each sequence of each step
        self.released: list[int] = []

    def compute(self, batch: Batch) -> F32:
        counts = np.diff(batch.seq_offsets)
        self.steps.append(counts.tolist())
        assert 0 < len(batch.token_ids) <= self.shape.max_tokens
        assert len(counts) <= self.shape.max_texts
        states = np.zeros((len(batch.token_ids), HIDDEN), np.float32)
        written: set[tuple[int, int]] = set()
        for seq, start in enumerate(batch.start_positions):
            for row in range(batch.seq_offsets[seq], batch.seq_offsets[seq + 1]):
                position = start + row - batch.seq_offsets[seq]
                place = (int(batch.block_tables[seq, position // 16]), int(position % 16))
                assert place not in written
                written.add(place)
                self.slots[place] = batch.token_ids[row]
        for seq, start in enumerate(batch.start_positions):
            assert self.is_causal or start == 0
            stop = start + counts[seq]
            known = np.array([self.slots[batch.block_tables[seq, p // 16], p % 16] for p in range(stop)])
            for row in range(batch.seq_offsets[seq], batch.seq_offsets[seq + 1]):
                position = start + row - batch.seq_offsets[seq]
                seen = known[: position + 1] if self.is_causal else known
                states[row] = [known[position], seen.sum(), position]
        return states[batch.logit_rows]

    def project(self, vector: F32) -> F32:
        return vector

    def release_blocks(self, block_ids: list[int]) -> None:
        self.released += block_ids
        self.slots[block_ids] = -1

    def resident_kv_bytes(self) -> int:
        return 100 * int((self.slots >= 0).any(axis=1).sum())


def expect(token_ids: list[int], pooling: str, *, is_causal: bool, dimensions: int | None = None) -> F32:
    tokens = np.array(token_ids)
    seen = np.cumsum(tokens) if is_causal else np.full(len(tokens), tokens.sum())
    states = np.stack([tokens, seen, np.arange(len(tokens))], axis=1).astype(np.float64)
    pooled = {"mean": states.mean(axis=0), "cls": states[0], "last": states[-1]}[pooling]
    return normalized(pooled.astype(np.float32), dimensions)


class Made:
    """An embedder with its fake runner."""

    def __init__(
        self,
        *,
        pooling: str = "mean",
        is_causal: bool = False,
        clock: FakeClock | None = None,
        runner: type[FakeHiddenRunner] = FakeHiddenRunner,
    ) -> None:
        self.pooling, self.is_causal, self.runner = pooling, is_causal, runner
        self.runners: list[FakeHiddenRunner] = []
        self.shape = EmbeddingShape(max_model_len=100, max_tokens=100, max_texts=6)
        self.embedder = Embedder(
            self.make_runner,
            pooling=pooling,
            is_causal=is_causal,
            vocab_size=VOCAB_SIZE,
            shape=self.shape,
            config=EngineConfig(max_step_ms=100.0),
            clock=clock or FakeClock(),
        )

    def make_runner(self, shape: EmbeddingShape) -> FakeHiddenRunner:
        self.runners.append(self.runner(shape, is_causal=self.is_causal))
        return self.runners[0]

    def run(self, *, is_shared: bool = False) -> dict[str, EmbeddingResult]:
        results: dict[str, EmbeddingResult] = {}
        while self.embedder.has_work:
            results |= self.embedder.step(is_shared=is_shared)
        return results

    def check(self, spec: EmbeddingSpec, result: EmbeddingResult) -> None:
        assert not isinstance(result, CorralError)
        for token_ids, vector in zip(spec.inputs, result, strict=True):
            wanted = expect(list(token_ids), self.pooling, is_causal=self.is_causal, dimensions=spec.dimensions)
            np.testing.assert_array_equal(vector, wanted)


def test_nothing_is_made_before_the_first_step() -> None:
    made = Made()
    assert not made.embedder.has_work
    made.embedder.release()
    assert (made.runners, made.embedder.resident_kv_bytes(), made.embedder.num_requests) == ([], 0, 0)


def test_a_tenant_with_many_requests_does_not_hold_up_another() -> None:
    made = Made()
    for i in range(200):
        made.embedder.add(EmbeddingSpec(f"a{i}", [[1] * 20], tenant="a"))
    made.embedder.step(is_shared=False)
    made.embedder.add(EmbeddingSpec("b", [[2] * 20] * 4, tenant="b"))
    ended: dict[str, EmbeddingResult] = {}
    for _ in range(2):  # alone it would take one step, of five texts
        ended |= made.embedder.step(is_shared=False)
    assert "b" in ended
    assert made.embedder.abort("a199")
    assert len(made.run()) == 200 - 1 - 5 - (len(ended) - 1)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_tokens_are_computed_in_proportion_to_weights(weight: float) -> None:
    made = Made()
    for i in range(100):
        made.embedder.add(EmbeddingSpec(f"a{i}", [[1] * 20], tenant="a", weight=weight))
        made.embedder.add(EmbeddingSpec(f"b{i}", [[2] * 20], tenant="b"))
    ended: dict[str, EmbeddingResult] = {}
    while len(ended) < 60:
        ended |= made.embedder.step(is_shared=False)
    of_a = sum(name[0] == "a" for name in ended)
    assert of_a / len(ended) == pytest.approx(weight / (weight + 1), abs=0.08)


def test_inputs_of_many_requests_share_a_step() -> None:
    made = Made()
    specs = [EmbeddingSpec(f"r{i}", [[i, i + 1], [i]]) for i in range(3)]
    for spec in specs:
        made.embedder.add(spec)
    results = made.run()
    assert made.runners[0].steps == [[2, 2, 2, 1, 1, 1]]
    for spec in specs:
        made.check(spec, results[spec.request_id])
    assert made.embedder.num_tokens == 9


def test_a_large_request_does_not_hold_a_small_one_up() -> None:
    made = Made()
    made.embedder.add(EmbeddingSpec("large", [[1] * 60] * 50))
    made.embedder.add(EmbeddingSpec("small", [[2] * 30]))
    assert list(made.embedder.step(is_shared=False)) == ["small"]
    assert made.runners[0].steps == [[60, 30]]


def test_without_causal_attention_no_input_is_cut() -> None:
    made = Made()
    spec = EmbeddingSpec("r", [[1] * 100, [2] * 70, [3] * 31, [4] * 99, [5]])
    made.embedder.add(spec)
    made.check(spec, made.run(is_shared=True)["r"])
    assert made.runners[0].steps == [[100], [70], [31], [99, 1]]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_with_causal_attention_inputs_fill_the_steps(pooling: str) -> None:
    made = Made(pooling=pooling, is_causal=True)
    spec = EmbeddingSpec("r", [[1] * 100, list(range(50)) + [3] * 20, [4] * 31])
    made.embedder.add(spec)
    made.check(spec, made.run()["r"])
    assert made.runners[0].steps == [[100], [70, 30], [1]]


def test_beside_streams_a_step_takes_half_of_its_time_at_most() -> None:
    clock = FakeClock()

    class SlowRunner(FakeHiddenRunner):
        def compute(self, batch: Batch) -> F32:
            clock.now_s += 0.002 * len(batch.token_ids)  # 2 ms a token; 50 ms are half of max_step_ms
            return super().compute(batch)

    made = Made(is_causal=True, pooling="last", clock=clock, runner=SlowRunner)
    spec = EmbeddingSpec("r", [[1] * 100] * 3)
    made.embedder.add(spec)
    made.check(spec, made.run(is_shared=True)["r"])
    sizes = [sum(step) for step in made.runners[0].steps]
    assert sizes[0] == 16
    assert 16 < max(sizes) <= 25


def test_abort_forgets_a_request_and_frees_what_it_held() -> None:
    made = Made(is_causal=True)
    made.embedder.add(EmbeddingSpec("long", [[1] * 90, [2] * 90]))
    made.embedder.add(EmbeddingSpec("other", [[3] * 90]))
    made.embedder.step(is_shared=False)
    made.embedder.step(is_shared=False)
    assert made.embedder.abort("long")
    assert not made.embedder.abort("long")
    assert not made.embedder.abort("unknown")
    made.check(
        EmbeddingSpec("other", [[3] * 90]), made.run().get("other") or [expect([3] * 90, "mean", is_causal=True)]
    )
    assert sorted(made.embedder._free) == list(range(made.shape.num_blocks))


def test_release_gives_the_blocks_back_that_were_touched() -> None:
    made = Made()
    made.embedder.add(EmbeddingSpec("r", [[1] * 40, [2]]))
    made.run()
    assert made.embedder.resident_kv_bytes() == 400
    made.embedder.release()
    assert made.runners[0].released == [0, 1, 2, 3]
    assert made.embedder.resident_kv_bytes() == 0
    made.embedder.release()
    assert len(made.runners[0].released) == 4


def test_hidden_states_that_are_not_finite_end_their_request_only() -> None:
    class Poisoned(FakeHiddenRunner):
        def compute(self, batch: Batch) -> F32:
            states = super().compute(batch)
            states[states[:, 0] == 13] = np.inf
            return states

    made = Made(runner=Poisoned)
    made.embedder.add(EmbeddingSpec("bad", [[1], [13, 2]]))
    made.embedder.add(EmbeddingSpec("good", [[2]]))
    results = made.run()
    assert "not finite" in str(results["bad"])
    made.check(EmbeddingSpec("good", [[2]]), results["good"])


def test_no_memory_ends_the_requests_and_not_the_engine() -> None:
    class TooLarge(FakeHiddenRunner):
        def __init__(self, shape: EmbeddingShape, *, is_causal: bool) -> None:
            raise MemoryError

    made = Made(runner=TooLarge)
    made.embedder.add(EmbeddingSpec("r", [[1]]))
    [result] = made.embedder.step(is_shared=False).values()
    assert isinstance(result, InsufficientMemory)
    assert not made.embedder.has_work


REFUSED: list[tuple[list[list[int]], str]] = [
    ([], "there is no input"),
    ([[1], []], "an input has 0 tokens; there must be from 1 to 100"),
    ([[1] * 101], "an input has 101 tokens"),
    ([[1, 50]], "input has token id 50; ids go from 0 to 49"),
    ([[-1]], "input has token id -1"),
]


@pytest.mark.parametrize(("inputs", "message"), REFUSED)
def test_what_can_never_run_is_refused(inputs: list[list[int]], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        Made().embedder.check(EmbeddingSpec("r", inputs))
    assert caught.value.param == "input"


token_lists = st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=100), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(token_lists, min_size=1, max_size=5), st.sampled_from(["mean", "cls", "last"]), st.booleans(), st.data()
)
def test_any_company_gives_the_same_vectors(
    requests: list[list[list[int]]], pooling: str, is_causal: bool, data: st.DataObject
) -> None:
    made = Made(pooling=pooling, is_causal=is_causal)
    specs = [EmbeddingSpec(str(i), inputs, data.draw(st.sampled_from([None, 2]))) for i, inputs in enumerate(requests)]
    results: dict[str, EmbeddingResult] = {}
    aborted = set()
    for spec in specs:
        made.embedder.add(spec)
        if data.draw(st.booleans()):
            results |= made.embedder.step(is_shared=data.draw(st.booleans()))
        if data.draw(st.integers(0, 9)) == 0 and made.embedder.abort(spec.request_id):
            aborted.add(spec.request_id)
    results |= made.run(is_shared=data.draw(st.booleans()))
    assert set(results) == {spec.request_id for spec in specs} - aborted
    for spec in specs:
        if spec.request_id not in aborted:
            made.check(spec, results[spec.request_id])
    assert sorted(made.embedder._free) == list(range(made.shape.num_blocks))
