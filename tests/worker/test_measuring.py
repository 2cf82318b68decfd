"""What a request would come to is what it comes to: quotas promise by it."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from corral.config import EngineConfig
from corral.errors import ContextLengthExceeded, CorralError
from corral.request import EmbedRequest, EmbedResult, Overflow, Request, RequestOutput
from corral.sampling_params import SamplingParams
from corral.worker.pipeline import Pipeline
from tests.support.gguf_writer import write_tiny_gguf

CONTEXT = 64
LONG = "The horses ran. " * 40


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    loaded = Pipeline.load(path, EngineConfig(max_model_len=CONTEXT, num_threads=1, cache_weights=False))
    yield loaded
    loaded.close()


def last_output(pipeline: Pipeline, request: Request) -> RequestOutput:
    queue: SimpleQueue[RequestOutput | CorralError] = SimpleQueue()
    pipeline.submit(request, queue.put)
    while True:
        output = queue.get(timeout=60)
        assert isinstance(output, RequestOutput)
        if output.is_finished:
            return output


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("max_tokens", [None, 5])
@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "The horses"},
        {"prompt": [1, 2, 3, 4]},
        {"messages": [{"role": "user", "content": "The horses"}]},
        {"messages": [{"role": "user", "content": "a b"}] * 40, "overflow": Overflow.DROP_OLDEST},
        {"prompt": LONG, "overflow": Overflow.DROP_OLDEST},
        {"prompt": LONG, "truncate_prompt": 9},
        {"prompt": "The horses", "max_context": 20},
    ],
)
def test_answers_come_to_what_was_measured(
    pipeline: Pipeline, fields: dict[str, Any], max_tokens: int | None, n: int
) -> None:
    sampling = SamplingParams(n=n, temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    request = Request("r", sampling=sampling, **fields)
    size = pipeline.measure(request)
    usage = last_output(pipeline, request).usage
    assert size.request_id == "r"
    assert size.prompt_tokens == usage.prompt_tokens
    assert n * size.max_tokens == usage.completion_tokens, "nothing but the limit ends it"


def test_what_would_be_refused_is_refused(pipeline: Pipeline) -> None:
    for request in (
        Request("r", prompt=LONG),
        Request("r", prompt="The horses", sampling=SamplingParams(max_tokens=CONTEXT)),
    ):
        with pytest.raises(ContextLengthExceeded):
            pipeline.measure(request)


def test_embeddings(pipeline: Pipeline) -> None:
    request = EmbedRequest("e", "", ["The horses", LONG, [1, 2, 3], ""])
    queue: SimpleQueue[EmbedResult | CorralError] = SimpleQueue()
    pipeline.embed(request, queue.put)
    result = queue.get(timeout=60)
    assert isinstance(result, EmbedResult)
    assert pipeline.measure(request).prompt_tokens == result.prompt_tokens
    with pytest.raises(ContextLengthExceeded):
        pipeline.measure(EmbedRequest("e", "", [LONG], truncate=False))
