"""Texts in, vectors out, over tiny random models: all parts are real."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from corral.config import EngineConfig
from corral.errors import ContextLengthExceeded, CorralError, EngineDead, InvalidConfig, InvalidRequest
from corral.request import EmbedRequest, EmbedResult, Request, RequestOutput, new_request_id
from corral.sampling_params import SamplingParams
from corral.worker import embedding
from corral.worker.pipeline import Pipeline
from corral.worker.protocol import MAX_FRAME_BYTES
from tests.support.encoder_writer import TinyEncoder, write_tiny_encoder
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

CONTEXT = 64
CLS, SEP = 3, 4
CONFIG = EngineConfig(max_num_seqs=4, max_queue=8, num_threads=1, cache_weights=False, max_num_batched_tokens=32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    model = TinyEncoder(hidden=64, intermediate=96, context_length=CONTEXT)
    loaded = Pipeline.load(write_tiny_encoder(tmp_path_factory.mktemp("model") / "encoder.gguf", model), CONFIG)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "decoder.gguf")
    loaded = Pipeline.load(path, EngineConfig(max_model_len=256, num_threads=1, max_step_ms=5.0))
    yield loaded
    loaded.close()


def embed_all(pipeline: Pipeline, *inputs: str | list[int], **options: Any) -> EmbedResult:
    queue: SimpleQueue[EmbedResult | CorralError] = SimpleQueue()
    pipeline.embed(EmbedRequest(new_request_id("e"), "", list(inputs), **options), queue.put)
    result = queue.get(timeout=60)
    if isinstance(result, CorralError):
        raise result
    return result


def vectors(pipeline: Pipeline, *inputs: str | list[int], **options: Any) -> list[npt.NDArray[np.float32]]:
    return [np.frombuffer(each, "<f4") for each in embed_all(pipeline, *inputs, **options).embeddings]


def test_one_vector_of_length_one_for_each_input(encoder: Pipeline) -> None:
    result = embed_all(encoder, "the horses", "", [CLS, 9, SEP])
    ids = [encoder.tokenizer.encode(text, add_special=True, parse_special=False) for text in ("the horses", "")]
    assert ids[1] == [CLS, SEP]
    assert result.prompt_tokens == len(ids[0]) + 2 + 3
    got = [np.frombuffer(each, "<f4") for each in result.embeddings]
    assert [len(vector) for vector in got] == [64] * 3
    np.testing.assert_allclose([np.linalg.norm(vector) for vector in got], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(got[0], vectors(encoder, ids[0])[0])


def test_company_leaves_no_trace(encoder: Pipeline) -> None:
    texts: list[str | list[int]] = [f"horse {'the corral ' * (i % 7)}{i}" for i in range(30)]
    together = vectors(encoder, *texts)
    for text, want in zip(texts, together, strict=True):
        np.testing.assert_array_equal(vectors(encoder, text)[0], want)


def test_what_a_load_tells(encoder: Pipeline, decoder: Pipeline) -> None:
    assert (encoder.info.is_embedding, encoder.info.embedding_length, encoder.info.max_model_len) == (True, 64, CONTEXT)
    assert (decoder.info.is_embedding, decoder.info.embedding_length) == (False, 256)
    assert "embeddings     up to 64 tokens of 256 texts at once" in encoder.plan_text
    assert "users at once" not in encoder.plan_text


MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "x"}]


def test_an_encoder_does_not_generate(encoder: Pipeline) -> None:
    with pytest.raises(InvalidRequest, match=r'^"minilm" does not support generate$') as caught:
        encoder.submit(Request("r", "minilm", prompt="x"), lambda _: None)
    assert caught.value.param == "model"
    with pytest.raises(InvalidRequest, match=r'^"tiny bert" does not support chat$'):
        encoder.submit(Request("r", messages=MESSAGES), lambda _: None)
    with pytest.raises(InvalidRequest, match=r'^"tiny bert" does not support generate$'):
        encoder.submit(Request("r", messages=MESSAGES, with_prompt_ids=True), lambda _: None)


def test_a_load_of_an_encoder_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Pipeline.load(write_tiny_encoder(tmp_path / "encoder.gguf"), CONFIG).close()
    assert caplog.records == []


def test_a_long_text_is_cut_and_keeps_its_end_token(encoder: Pipeline) -> None:
    text = "horse " * 100
    ids = encoder.tokenizer.encode(text, add_special=True, parse_special=False)
    cut = [*ids[: CONTEXT - 1], SEP]
    result = embed_all(encoder, text)
    assert result.prompt_tokens == CONTEXT
    assert result.embeddings == embed_all(encoder, cut).embeddings
    assert embed_all(encoder, ids).embeddings == embed_all(encoder, ids[:CONTEXT]).embeddings


def test_the_caller_may_want_less_context_than_the_model_has(encoder: Pipeline) -> None:
    head = encoder.tokenizer.encode("horse", add_special=True, parse_special=False)[:2]
    cut = embed_all(encoder, "horse horse horse", max_context=3)
    assert cut.embeddings == embed_all(encoder, [*head, SEP]).embeddings
    assert cut.embeddings == embed_all(encoder, [*head, SEP, 9], max_context=3).embeddings
    assert cut.prompt_tokens == 3
    assert embed_all(encoder, "horse " * 100, max_context=CONTEXT + 1).prompt_tokens == CONTEXT
    with pytest.raises(ContextLengthExceeded, match=r"^the input length exceeds the context length$"):
        embed_all(encoder, "horse horse", max_context=3, truncate=False)


@pytest.mark.parametrize("context", [2, 1, 0, -1])
def test_a_context_that_leaves_nothing_of_the_text_is_refused(encoder: Pipeline, context: int) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"^input after truncation exceeds maximum context length$"):
        embed_all(encoder, "horse horse", max_context=context)


@pytest.mark.parametrize("text", ["horse " * 100, [9] * (CONTEXT + 1)])
def test_a_long_text_is_refused_if_it_must_not_be_cut(encoder: Pipeline, text: str | list[int]) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"^the input length exceeds the context length$") as caught:
        embed_all(encoder, "short", text, truncate=False)
    assert caught.value.param == "input"
    embed_all(encoder, [9] * CONTEXT, truncate=False)


def test_fewer_dimensions_are_the_first_ones_at_length_one(encoder: Pipeline) -> None:
    [whole] = vectors(encoder, "the horses")
    [cut] = vectors(encoder, "the horses", dimensions=5)
    np.testing.assert_allclose(cut, whole[:5] / np.linalg.norm(whole[:5]), rtol=1e-6)
    np.testing.assert_array_equal(vectors(encoder, "the horses", dimensions=64)[0], whole)


@pytest.mark.parametrize(
    ("inputs", "options", "param", "message"),
    [
        (["x"], {"dimensions": 65}, "dimensions", "dimensions is 65; it must be from 1 to 64"),
        (["x"], {"dimensions": 0}, "dimensions", "dimensions is 0"),
        ([], {}, "input", "there is no input"),
        ([[]], {}, "input", "an input has no tokens"),
        (["x", [5, 1 << 40]], {}, "input", "input has token id 1099511627776; ids go from 0 to"),
        ([[-1]], {}, "input", "input has token id -1"),
    ],
)
def test_what_is_refused(
    encoder: Pipeline, inputs: list[Any], options: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        embed_all(encoder, *inputs, **options)
    assert caught.value.param == param


def test_more_vectors_than_a_frame_holds_are_refused(encoder: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MAX_RESULT_BYTES", 3 * 64 * 4)
    embed_all(encoder, "a", "b", "c")
    with pytest.raises(InvalidRequest, match="there are 4 inputs; a request to this model may have 3"):
        embed_all(encoder, "a", "b", "c", "d")


@pytest.mark.parametrize("pooling", [None, 1])
def test_a_decoder_embeds_texts_longer_than_a_step(pooling: int | None, tmp_path: Path) -> None:
    extra = {"{arch}.pooling_type": pooling}
    path = write_tiny_gguf(tmp_path / "decoder.gguf", TinyModel(extra=extra))
    ids = [int(i) for i in np.random.default_rng(1).integers(3, 400, 200)]
    found = []
    for max_tokens in (512, 32, 7):
        config = EngineConfig(max_model_len=256, num_threads=1, max_num_batched_tokens=max_tokens, max_num_seqs=4)
        pipeline = Pipeline.load(path, config)
        try:
            assert pipeline.info.is_embedding is (pooling is not None)
            found.append(embed_all(pipeline, ids, ids[:50]).embeddings)
        finally:
            pipeline.close()
    assert found[0] == found[1] == found[2]


def test_embeddings_beside_answers_change_neither(decoder: Pipeline) -> None:
    def answer(prompt: str) -> tuple[int, ...]:
        queue: SimpleQueue[RequestOutput | CorralError] = SimpleQueue()
        sampling = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
        decoder.submit(Request(new_request_id("r"), prompt=prompt, sampling=sampling), queue.put)
        ids: list[int] = []
        while True:
            output = queue.get(timeout=60)
            assert not isinstance(output, CorralError), output
            ids += [token for delta in output.deltas for token in delta.token_ids]
            if output.is_finished:
                return tuple(ids)

    prompts = [f"horse {i}" for i in range(3)]
    texts: list[str | list[int]] = [f"the corral {i} " * 12 for i in range(20)]
    answers_alone, vectors_alone = [answer(prompt) for prompt in prompts], embed_all(decoder, *texts).embeddings
    answers: dict[str, tuple[int, ...]] = {}
    threads = [threading.Thread(target=lambda p=prompt: answers.update({p: answer(p)})) for prompt in prompts]
    for thread in threads:
        thread.start()
    assert embed_all(decoder, *texts).embeddings == vectors_alone
    for thread in threads:
        thread.join()
    assert [answers[prompt] for prompt in prompts] == answers_alone
    stats = decoder.stats()
    assert (stats.num_used_blocks, stats.num_requests) == (0, 0)
    assert stats.prompt_tokens > 0


def test_a_model_without_special_tokens_embeds_an_empty_text(tmp_path: Path) -> None:
    pipeline = Pipeline.load(write_tiny_gguf(tmp_path / "tiny.gguf"), CONFIG)  # adds neither BOS nor EOS
    try:
        assert embed_all(pipeline, "").embeddings == embed_all(pipeline, [pipeline.tokenizer.bos_id or 0]).embeddings
    finally:
        pipeline.close()


def test_a_decoder_whose_file_ends_texts_keeps_the_end_when_it_cuts(tmp_path: Path) -> None:
    """As Qwen3-Embedding: its vector is that of EOS."""
    extra = {"{arch}.pooling_type": 3, "tokenizer.ggml.add_eos_token": True}
    path = write_tiny_gguf(tmp_path / "tiny.gguf", TinyModel(family="qwen3", extra=extra))
    pipeline = Pipeline.load(path, EngineConfig(max_model_len=32, num_threads=1))
    try:
        ids = pipeline.tokenizer.encode("The horses " * 50, add_special=True, parse_special=False)
        assert len(ids) > 32
        assert ids[-1] == pipeline.tokenizer.eos_id
        assert (
            embed_all(pipeline, "The horses " * 50).embeddings == embed_all(pipeline, [*ids[:31], ids[-1]]).embeddings
        )
        assert embed_all(pipeline, "").prompt_tokens == 1
    finally:
        pipeline.close()


def test_an_aborted_request_ends_with_an_error(encoder: Pipeline) -> None:
    queue: SimpleQueue[EmbedResult | CorralError] = SimpleQueue()
    texts: list[str | list[int]] = [[5] * CONTEXT] * 2000
    encoder.embed(EmbedRequest("aborted", "", texts), queue.put)
    encoder.abort("aborted")
    encoder.abort("aborted")
    result = queue.get(timeout=60)
    assert isinstance(result, CorralError)
    assert "given up" in str(result)


def test_an_id_in_use_and_a_closed_model_are_refused(tmp_path: Path) -> None:
    pipeline = Pipeline.load(write_tiny_encoder(tmp_path / "encoder.gguf"), CONFIG)
    queue: SimpleQueue[EmbedResult | CorralError] = SimpleQueue()
    texts: list[str | list[int]] = [[5] * 500] * 500
    pipeline.embed(EmbedRequest("same", "", texts), queue.put)
    with pytest.raises(InvalidRequest, match="in use"):
        pipeline.embed(EmbedRequest("same", "", ["x"]), queue.put)
    pipeline.close()
    assert isinstance(queue.get(timeout=60), CorralError)
    with pytest.raises(EngineDead):
        pipeline.embed(EmbedRequest("late", "", ["x"]), queue.put)


def test_the_context_may_be_shorter_and_not_longer(tmp_path: Path) -> None:
    path = write_tiny_encoder(tmp_path / "encoder.gguf")
    pipeline = Pipeline.load(path, EngineConfig(max_model_len=20, num_threads=1))
    try:
        assert embed_all(pipeline, "horse " * 100).prompt_tokens == 20
    finally:
        pipeline.close()
    with pytest.raises(InvalidConfig, match="max_model_len is 513"):
        Pipeline.load(path, EngineConfig(max_model_len=513, num_threads=1))


def test_the_largest_result_fits_into_a_frame() -> None:
    assert 2 * embedding.MAX_RESULT_BYTES <= MAX_FRAME_BYTES
