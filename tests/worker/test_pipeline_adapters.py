"""Requests with adapters through a whole pipeline: each as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from corral.config import EngineConfig
from corral.errors import CorralError, InvalidModelFile, ModelNotFound, QueueFull, UnsupportedModel
from corral.request import Request, RequestOutput, new_request_id
from corral.sampling_params import SamplingParams
from corral.worker.pipeline import Pipeline
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.random_adapters import TinyAdapter, write_tiny_adapter

BASE = TinyModel(head_gain=1.0)
CONFIG = EngineConfig(max_model_len=256, max_num_seqs=8, max_queue=64, num_threads=2, kv_cache_bytes=16 << 20)
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
PROMPT = "The shepherd opened the corral at dawn. " * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    write_tiny_gguf(folder / "base.gguf", BASE)
    for seed in range(3):
        write_tiny_adapter(folder / f"{seed}.gguf", TinyAdapter(base=BASE, rank=4 + seed, seed=seed))
    return folder


@pytest.fixture
def pipeline(folder: Path) -> Iterator[Pipeline]:
    loaded = Pipeline.load(folder / "base.gguf", CONFIG)
    yield loaded
    loaded.close()


def submit(pipeline: Pipeline, adapter: Path | None, prompt: str = PROMPT) -> SimpleQueue[RequestOutput | CorralError]:
    queue: SimpleQueue[RequestOutput | CorralError] = SimpleQueue()
    name = None if adapter is None else str(adapter)
    pipeline.submit(Request(new_request_id("r"), prompt=prompt, sampling=GREEDY, adapter=name), queue.put)
    return queue


def collect(queue: SimpleQueue[RequestOutput | CorralError]) -> tuple[tuple[int, ...], int]:
    """The answer's tokens, and how many of the prompt's came from shared blocks."""
    token_ids: tuple[int, ...] = ()
    while True:
        output = queue.get(timeout=60)
        assert isinstance(output, RequestOutput)
        token_ids += tuple(i for delta in output.deltas for i in delta.token_ids)
        if output.is_finished:
            return token_ids, output.usage.cached_tokens


def test_adapters_and_the_base_in_one_batch_answer_as_alone(pipeline: Pipeline, folder: Path) -> None:
    adapters = [None, *(folder / f"{seed}.gguf" for seed in range(3))]
    alone = [collect(submit(pipeline, adapter))[0] for adapter in adapters]
    assert len(set(alone)) == 4
    queues = [submit(pipeline, adapter) for _ in range(3) for adapter in adapters]
    assert [collect(queue)[0] for queue in queues] == alone * 3
    stats = pipeline.stats()
    assert stats.num_adapters == 3
    assert stats.adapter_bytes > 0


def test_prefixes_are_shared_among_equal_adapters_only(pipeline: Pipeline, folder: Path) -> None:
    copy = folder / "copy.gguf"
    copy.write_bytes((folder / "0.gguf").read_bytes())
    first, cached = collect(submit(pipeline, folder / "0.gguf"))
    assert cached == 0
    for other in (None, folder / "1.gguf"):
        assert collect(submit(pipeline, other))[1] == 0
    for path in (folder / "0.gguf", copy):  # the content counts, not the name
        again, cached = collect(submit(pipeline, path))
        assert again == first
        assert cached >= 16


def test_an_adapter_at_fault_costs_its_own_request_only(pipeline: Pipeline, folder: Path) -> None:
    running = submit(pipeline, folder / "0.gguf")
    torn = folder / "torn.gguf"
    torn.write_bytes((folder / "0.gguf").read_bytes()[:3000])
    for path, error in ((folder / "none.gguf", ModelNotFound), (torn, InvalidModelFile)):
        with pytest.raises(error, match=path.name):
            submit(pipeline, path)
    with pytest.raises(UnsupportedModel, match="for the family 'qwen2'"):
        submit(pipeline, write_tiny_adapter(folder / "q.gguf", TinyAdapter(base=replace(BASE, family="qwen2"))))
    assert len(collect(running)[0]) == 24
    assert pipeline.stats().num_adapters == 1


def test_an_adapter_is_free_when_its_requests_have_ended(folder: Path) -> None:
    with_room_for_one = replace(CONFIG, adapter_max_bytes=size_of(folder) + 1000)
    pipeline = Pipeline.load(folder / "base.gguf", with_room_for_one)
    try:
        running = submit(pipeline, folder / "0.gguf")
        with pytest.raises(QueueFull):
            submit(pipeline, folder / "1.gguf", "refused while the other one is in use")
        collect(running)
        other = submit(pipeline, folder / "1.gguf")
        assert pipeline.stats().num_adapters == 1
        with pytest.raises(CorralError, match="the prompt is empty"):
            submit(pipeline, folder / "1.gguf", "")
        collect(other)
        collect(submit(pipeline, folder / "0.gguf"))
    finally:
        pipeline.close()


def size_of(folder: Path) -> int:
    pipeline = Pipeline.load(folder / "base.gguf", CONFIG)
    try:
        collect(submit(pipeline, folder / "1.gguf"))
        return pipeline.stats().adapter_bytes
    finally:
        pipeline.close()
