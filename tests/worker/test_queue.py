"""What those who wait in a worker hear, and how it bounds and drops them; over a tiny random model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from corral.config import EngineConfig
from corral.errors import CorralError, DeadlineExceeded, TenantQueueFull
from corral.request import EmbedRequest, EmbedResult, QueuePlace, Request, RequestOutput, Usage
from corral.sampling_params import SamplingParams
from corral.worker.client import WorkerClient
from corral.worker.merge import merge
from corral.worker.pipeline import Pipeline
from tests.support.gguf_writer import write_tiny_gguf
from tests.support.scripted_worker import COMMAND

PATIENCE_S = 60.0
LONG = SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    loaded = Pipeline.load(path, EngineConfig(max_model_len=256, max_num_seqs=1, num_threads=1, cache_weights=False))
    yield loaded
    loaded.close()


def test_who_waits_hears_of_its_place_first(pipeline: Pipeline) -> None:
    outputs: SimpleQueue[RequestOutput | CorralError] = SimpleQueue()
    pipeline.submit(Request("first", prompt="The horses", sampling=LONG), lambda _: None)
    pipeline.submit(Request("second", prompt="The horses", sampling=replace(LONG, max_tokens=2)), outputs.put)
    first = outputs.get(timeout=PATIENCE_S)
    assert isinstance(first, RequestOutput)
    assert first.place == QueuePlace(0)
    assert (first.deltas, first.usage.completion_tokens, first.is_finished) == ((), 0, False)
    assert first.usage.prompt_tokens > 0
    pipeline.abort("first")
    output: RequestOutput | CorralError = first
    while not (isinstance(output, RequestOutput) and output.is_finished):
        output = outputs.get(timeout=PATIENCE_S)
    assert output.usage.completion_tokens == 2


def test_places_are_forgotten_when_words_come() -> None:
    place, later = QueuePlace(3, 1.5), QueuePlace(2, 1.0)
    told = RequestOutput("r", usage=Usage(7), place=place)
    assert merge(told, RequestOutput("r", usage=Usage(7))).place == place
    assert merge(told, RequestOutput("r", place=later)).place == later


async def test_what_is_too_late_already_is_not_even_prepared() -> None:
    client = await WorkerClient.start(Path("scripted.gguf"), EngineConfig(), command=COMMAND)
    try:
        past = time.monotonic() - 1
        with pytest.raises(DeadlineExceeded):
            await anext(client.generate(Request("r", prompt="die", deadline=past)))
        with pytest.raises(DeadlineExceeded):
            await client.embed(EmbedRequest("e", "", ["die"], deadline=past))
        assert isinstance(await client.embed(EmbedRequest("f", "", ["fine"], deadline=past + 1000)), EmbedResult)
    finally:
        await client.close()


async def test_one_key_does_not_take_all_that_a_worker_keeps() -> None:
    config = EngineConfig(max_num_seqs=1, max_queue=3, max_queue_per_key=1)
    client = await WorkerClient.start(Path("scripted.gguf"), config, command=COMMAND)
    held = [client.generate(Request(f"r{i}", prompt="hold", tenant="a")) for i in range(4)]
    try:
        for outputs in held:
            await anext(outputs)
        with pytest.raises(TenantQueueFull, match="4 requests of this key"):
            await anext(client.generate(Request("r", prompt="words", tenant="a")))
        assert await anext(client.generate(Request("s", prompt="words", tenant="b")))
        await held[0].aclose()
        assert await anext(client.generate(Request("t", prompt="words", tenant="a")))
    finally:
        for outputs in held:
            await outputs.aclose()
        await client.close()
