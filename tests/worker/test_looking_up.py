"""Prompts and tokens that are only looked at, of a tiny random model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral.config import EngineConfig
from corral.errors import ContextLengthExceeded, InvalidRequest
from corral.request import DetokenizeRequest, Request
from corral.worker import pipeline as module
from corral.worker.pipeline import Pipeline
from tests.support.gguf_writer import write_tiny_gguf


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    loaded = Pipeline.load(path, EngineConfig(max_model_len=64, num_threads=1, cache_weights=False))
    yield loaded
    loaded.close()


def test_a_prompt_may_be_longer_than_the_context(pipeline: Pipeline) -> None:
    request = Request("r", prompt="The horses ran. " * 200)
    rendered = pipeline.render(request)
    assert (rendered.request_id, rendered.text) == ("r", request.prompt)
    assert len(rendered.token_ids) > 64
    with pytest.raises(ContextLengthExceeded):
        pipeline.submit(request, lambda _: None)
    chat = pipeline.render(Request("r", messages=[{"role": "user", "content": "horses " * 200}]))
    assert len(chat.token_ids) > 64
    assert "horses horses" in chat.text


def test_tokens_become_the_text_again(pipeline: Pipeline) -> None:
    ids = pipeline.render(Request("r", prompt="The horses ran.")).token_ids
    found = pipeline.detokenize(DetokenizeRequest("d", "", ids))
    assert (found.request_id, found.text) == ("d", "The horses ran.")
    assert len(found.token_texts) == len(ids)
    assert pipeline.detokenize(DetokenizeRequest("d", "", [])).text == ""


@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_ids_outside_of_the_vocabulary(pipeline: Pipeline, token_id: int) -> None:
    with pytest.raises(InvalidRequest, match=f"token id {token_id}") as caught:
        pipeline.detokenize(DetokenizeRequest("d", "", [5, token_id]))
    assert caught.value.param == "tokens"


def test_the_text_of_tokens_is_bounded(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = pipeline.render(Request("r", prompt="The horses ran.")).token_ids
    monkeypatch.setattr(module, "MAX_TEXT_BYTES", 4)
    with pytest.raises(InvalidRequest, match="4 are allowed") as caught:
        pipeline.detokenize(DetokenizeRequest("d", "", ids))
    assert caught.value.param == "tokens"
