from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import corral
from corral import LLM, Completion, SamplingParams
from corral.errors import ContextLengthExceeded, EngineDead, InvalidConfig, InvalidRequest, ModelNotFound
from corral.request import FinishReason
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.random_adapters import TinyAdapter, write_tiny_adapter

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
OPTIONS: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": 4, "max_queue": 8, "num_threads": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def llm(tiny: Path) -> Iterator[LLM]:
    with LLM(tiny, **OPTIONS) as made:
        yield made


def texts(completions: list[Completion]) -> list[str]:
    return [completion.text for completion in completions]


def test_one_prompt(llm: LLM) -> None:
    [completion] = llm.generate("The horses", GREEDY)
    assert completion.prompt == "The horses"
    [output] = completion.outputs
    assert output.text == completion.text != ""
    assert len(output.token_ids) == completion.usage.completion_tokens == 12
    assert output.finish_reason is FinishReason.LENGTH


def test_prompts_in_order_and_more_than_the_queue_holds(llm: LLM) -> None:
    prompts: list[str | list[int]] = [f"horse {i}" for i in range(40)]
    together = llm.generate(prompts, GREEDY)
    assert [completion.prompt for completion in together] == prompts
    assert texts(together) == [llm.generate(prompt, GREEDY)[0].text for prompt in prompts]


def test_token_ids(llm: LLM) -> None:
    assert texts(llm.generate([5, 6, 7], GREEDY)) == texts(llm.generate([[5, 6, 7]], GREEDY))
    assert len(llm.generate([[5, 6, 7], [8]], GREEDY)) == 2


def test_params_for_each(llm: LLM) -> None:
    short, long = llm.generate(
        ["a", "a"], [SamplingParams(max_tokens=1), SamplingParams(max_tokens=3, ignore_eos=True)]
    )
    assert short.usage.completion_tokens <= 1
    assert long.usage.completion_tokens == 3
    with pytest.raises(InvalidRequest, match="2 prompts and 1 sampling"):
        llm.generate(["a", "b"], [GREEDY])


def test_n_answers_larger_than_the_queue(llm: LLM) -> None:
    [completion] = llm.generate("a", SamplingParams(n=20, max_tokens=2, seed=1, ignore_eos=True))
    assert [output.index for output in completion.outputs] == list(range(20))
    assert all(len(output.token_ids) == 2 for output in completion.outputs)


def test_chat(llm: LLM) -> None:
    conversation = [{"role": "user", "content": "hello"}]
    [one] = llm.chat(conversation, GREEDY)
    assert one.prompt == conversation
    assert texts(llm.chat([conversation, conversation], GREEDY)) == [one.text] * 2


def test_nothing_to_do(llm: LLM) -> None:
    assert llm.generate([], GREEDY) == []
    assert llm.chat([], GREEDY) == []


def test_progress_goes_to_stderr(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(["a", "b"], GREEDY)
    assert capsys.readouterr() == ("", "")
    llm.generate(["a", "b"], GREEDY, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "answers" in err


def test_a_bad_prompt_stops_the_batch_and_leaves_nothing_running(llm: LLM) -> None:
    with pytest.raises(ContextLengthExceeded):
        llm.generate(["fine", "horses " * 1000], GREEDY)
    with pytest.raises(InvalidRequest, match="empty"):
        llm.generate(["fine", ""], GREEDY)
    assert len(llm.generate("still here", GREEDY)) == 1


def test_a_closed_one_says_so(tiny: Path) -> None:
    llm = LLM(tiny, **OPTIONS)
    llm.close()
    llm.close()
    with pytest.raises(EngineDead, match="closed"):
        llm.generate("a", GREEDY)


def test_options_and_names_are_checked(tiny: Path) -> None:
    with pytest.raises(InvalidConfig, match="no option 'max_len'"):
        LLM(tiny, max_len=5)
    with pytest.raises(InvalidConfig, match="num_threads"):
        LLM(tiny, num_threads=0)
    with pytest.raises(InvalidConfig, match="kv_cache_dtype is 'fp8'; it must be one of auto, f16, int8"):
        LLM(tiny, kv_cache_dtype="fp8")
    with pytest.raises(ModelNotFound):
        LLM(tiny.with_name("none.gguf"))


def test_the_package_offers_it() -> None:
    assert corral.LLM is LLM
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = corral.nothing


def test_adapters_for_all_or_for_each(llm: LLM, tmp_path: Path) -> None:
    path = write_tiny_adapter(tmp_path / "a.gguf", TinyAdapter(base=TinyModel(), gain=1.0))
    [base] = texts(llm.generate("The horses", GREEDY))
    [adapted] = texts(llm.generate("The horses", GREEDY, adapter=path))
    assert adapted != base
    assert texts(llm.generate(["The horses"] * 3, GREEDY, adapter=[path, None, str(path)])) == [adapted, base, adapted]
    message = {"role": "user", "content": "Hello"}
    assert texts(llm.chat([message], GREEDY, adapter=path)) != texts(llm.chat([message], GREEDY))
    with pytest.raises(InvalidRequest, match="there are 1 prompts and 2 adapters"):
        llm.generate("The horses", GREEDY, adapter=[None, path])
    with pytest.raises(ModelNotFound, match=r"none\.gguf"):
        llm.generate("The horses", GREEDY, adapter=tmp_path / "none.gguf")


def test_logprobs_have_one_entry_for_each_token(llm: LLM) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=2)
    [output] = llm.generate("The horses", params)[0].outputs
    assert [each.token_id for each in output.logprobs] == list(output.token_ids)
    for each in output.logprobs:
        assert each.top[0] == (each.text_bytes, each.logprob)
        assert each.top[1][1] <= each.logprob <= 0
    assert llm.generate("The horses", GREEDY)[0].outputs[0].logprobs == ()
