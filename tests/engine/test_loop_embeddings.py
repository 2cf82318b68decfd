"""Embeddings through the engine's thread: beside streams, in the queue, and at the end of the engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from corral.config import EngineConfig
from corral.engine.batch import Batch
from corral.engine.core import EngineCore
from corral.engine.embedder import Embedder, EmbeddingResult, EmbeddingSpec
from corral.engine.loop import EngineLoop
from corral.errors import CorralError, EngineDead, InvalidRequest, QueueFull
from corral.model.plan import EmbeddingShape
from corral.request import FinishReason
from tests.engine.test_loop import PATIENCE_S, Stream, make_spec
from tests.support.fake_runner import MAX_MODEL_LEN, VOCAB_SIZE, FakeRunner


class HiddenRunner:
    """The hidden state of a token is [token, 1]."""

    def __init__(self, _: EmbeddingShape) -> None:
        self.on_compute: Callable[[], None] = lambda: None

    def compute(self, batch: Batch) -> npt.NDArray[np.float32]:
        self.on_compute()
        tokens = batch.token_ids[batch.logit_rows].astype(np.float32)
        return np.stack([tokens, np.ones_like(tokens)], axis=1)

    def project(self, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return vector

    def release_blocks(self, block_ids: list[int]) -> None:
        pass

    def resident_kv_bytes(self) -> int:
        return 0


def embedding_loop(make_runner: Callable[[EmbeddingShape], HiddenRunner] = HiddenRunner) -> EngineLoop:
    config = EngineConfig(max_num_seqs=2, max_queue=2)
    embedder = Embedder(
        make_runner,
        pooling="mean",
        is_causal=True,
        vocab_size=VOCAB_SIZE,
        shape=EmbeddingShape(MAX_MODEL_LEN, 64),
        config=config,
    )
    core = EngineCore(FakeRunner(), config, max_model_len=MAX_MODEL_LEN, vocab_size=VOCAB_SIZE)
    return EngineLoop(core, config, embedder=embedder)


def test_embeddings_come_beside_streams() -> None:
    engine = embedding_loop()
    stream: Stream = Stream()
    results: queue.Queue[EmbeddingResult] = queue.Queue()
    engine.submit(make_spec("stream", max_tokens=20, ignore_eos=True), stream)
    for i in range(3):
        engine.embed(EmbeddingSpec(f"e{i}", [[3, 4, 5]]), results.put)
        result = results.get(timeout=PATIENCE_S)
        assert not isinstance(result, CorralError)
        np.testing.assert_allclose(result[0], np.array([4, 1]) / 17**0.5, rtol=1e-6)
    assert stream.read()[-1].finish_reason is FinishReason.LENGTH
    assert engine.drain(PATIENCE_S)
    engine.close()


def test_embeddings_count_against_the_queue_and_end_with_the_engine() -> None:
    held, go = threading.Event(), threading.Event()

    class Held(HiddenRunner):
        def compute(self, batch: Batch) -> npt.NDArray[np.float32]:
            held.set()
            assert go.wait(PATIENCE_S)
            return super().compute(batch)

    engine = embedding_loop(Held)
    results: queue.Queue[EmbeddingResult] = queue.Queue()
    for i in range(4):
        engine.embed(EmbeddingSpec(f"e{i}", [[1] * 100] * 50), results.put)
        assert held.wait(PATIENCE_S)
    with pytest.raises(QueueFull):
        engine.embed(EmbeddingSpec("one more", [[1]]), results.put)
    engine.abort("e0")
    closing = threading.Thread(target=engine.close)
    closing.start()
    go.set()
    ends = [results.get(timeout=PATIENCE_S) for _ in range(4)]
    closing.join()
    assert all(isinstance(end, CorralError) for end in ends)
    assert results.empty()
    with pytest.raises(EngineDead):
        engine.embed(EmbeddingSpec("late", [[1]]), results.put)


def test_the_death_of_the_engine_ends_embeddings() -> None:
    class Broken(HiddenRunner):
        def compute(self, batch: Batch) -> npt.NDArray[np.float32]:
            raise ZeroDivisionError("scripted")

    engine = embedding_loop(Broken)
    results: queue.Queue[EmbeddingResult] = queue.Queue()
    engine.embed(EmbeddingSpec("e", [[1]]), results.put)
    assert isinstance(results.get(timeout=PATIENCE_S), EngineDead)


def test_an_engine_without_embedder_refuses() -> None:
    config = EngineConfig()
    core = EngineCore(FakeRunner(), config, max_model_len=MAX_MODEL_LEN, vocab_size=VOCAB_SIZE)
    engine = EngineLoop(core, config)
    with pytest.raises(InvalidRequest, match="this engine has no embeddings"):
        engine.embed(EmbeddingSpec("e", [[1]]), lambda _: None)
    engine.close()
