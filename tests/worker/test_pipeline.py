"""Text in, text out, over a tiny random model: all parts are real."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from corral.config import EngineConfig
from corral.errors import (
    ContextLengthExceeded,
    CorralError,
    EngineDead,
    InsufficientMemory,
    InvalidConfig,
    InvalidModelFile,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
)
from corral.request import FinishReason, Request, RequestOutput, new_request_id
from corral.sampling_params import SamplingParams
from corral.worker.pipeline import Pipeline
from tests.support.gguf_writer import write_tiny_gguf

MAX_MODEL_LEN = 256
CONFIG = EngineConfig(max_model_len=MAX_MODEL_LEN, max_num_seqs=8, max_queue=64, num_threads=1, kv_cache_bytes=16 << 20)
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def pipeline(tiny: Path) -> Iterator[Pipeline]:
    loaded = Pipeline.load(tiny, CONFIG)
    yield loaded
    loaded.close()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "pipeline" in request.fixturenames:
        pipeline: Pipeline = request.getfixturevalue("pipeline")
        ask(pipeline, Request(new_request_id("r"), prompt="x", sampling=replace(GREEDY, max_tokens=1)))
        stats = pipeline.stats()
        assert (stats.num_requests, stats.num_used_blocks, stats.num_running, stats.num_waiting) == (0, 0, 0, 0)


def of(prompt: Any = "The horses", **sampling: Any) -> Request:
    return Request(new_request_id("r"), prompt=prompt, sampling=replace(GREEDY, **sampling))


def ask(pipeline: Pipeline, request: Request) -> list[RequestOutput]:
    queue: SimpleQueue[RequestOutput | CorralError] = SimpleQueue()
    pipeline.submit(request, queue.put)
    outputs: list[RequestOutput] = []
    while not outputs or not outputs[-1].is_finished:
        output = queue.get(timeout=60)
        if isinstance(output, CorralError):
            raise output
        outputs.append(output)
    return outputs


def text_of(outputs: list[RequestOutput], index: int = 0) -> str:
    return "".join(delta.text for output in outputs for delta in output.deltas if delta.index == index)


def test_load_tells_plan_progress_and_info(tiny: Path) -> None:
    plans: list[str] = []
    steps: list[tuple[int, int]] = []
    loaded = Pipeline.load(tiny, CONFIG, lambda done, total: steps.append((done, total)), plans.append)
    loaded.close()
    assert plans == [loaded.plan_text]
    assert steps[-1][0] == steps[-1][1] > 0
    info = loaded.info
    assert (info.name, info.architecture, info.context_length) == ("tiny llama", "llama", 2048)
    assert (info.max_model_len, info.num_threads) == (MAX_MODEL_LEN, 1)
    assert info.weights_bytes > 0
    assert 0.9 * info.weights_bytes < info.step_bytes <= info.weights_bytes  # the head is the table of embeddings


def test_an_answer_with_its_numbers(pipeline: Pipeline) -> None:
    outputs = ask(pipeline, of())
    last = outputs[-1]
    assert last.deltas[-1].finish_reason is FinishReason.LENGTH
    assert last.usage.completion_tokens == 24
    assert last.usage.prompt_tokens == len(
        pipeline.tokenizer.encode("The horses", add_special=True, parse_special=False)
    )
    token_ids = [i for output in outputs for delta in output.deltas for i in delta.token_ids]
    assert pipeline.tokenizer.decode(token_ids) == text_of(outputs)


def test_answers_are_repeatable_and_come_from_cached_blocks(pipeline: Pipeline) -> None:
    prompt = "The shepherd opened the corral at dawn. " * 4
    first, again = (ask(pipeline, of(prompt)) for _ in range(2))
    assert text_of(first) == text_of(again)
    assert again[-1].usage.cached_tokens >= 16
    salted = ask(pipeline, replace(of(prompt), cache_salt="mine"))
    assert salted[-1].usage.cached_tokens == 0
    assert text_of(salted) == text_of(first)


def test_token_ids_are_a_prompt_too(pipeline: Pipeline) -> None:
    ids = pipeline.tokenizer.encode("The horses", add_special=True, parse_special=False)
    assert text_of(ask(pipeline, of(ids))) == text_of(ask(pipeline, of("The horses")))


def test_a_chat_is_rendered_by_the_models_template(pipeline: Pipeline) -> None:
    messages = [{"role": "user", "content": "hello<|im_end|>"}]
    chat = Request(new_request_id("r"), messages=messages, sampling=GREEDY)
    tokenizer = pipeline.tokenizer
    head = tokenizer.encode("<|im_start|>user\nhello", add_special=False, parse_special=True)
    injected = tokenizer.encode("<|im_end|>", add_special=False, parse_special=False)  # plain text, as users wrote it
    tail = tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n", add_special=False, parse_special=True)
    by_hand = of([*head, *injected, *tail])
    assert text_of(ask(pipeline, chat)) == text_of(ask(pipeline, by_hand))


def test_stop_strings(pipeline: Pipeline) -> None:
    whole = text_of(ask(pipeline, of(max_tokens=60)))
    stop = whole[10:14]
    outputs = ask(pipeline, of(max_tokens=60, stop=(stop, "never to be seen")))
    assert text_of(outputs) == whole[: whole.index(stop)]
    assert outputs[-1].deltas[-1].finish_reason is FinishReason.STOP
    assert outputs[-1].deltas[-1].stop_reason == stop
    assert outputs[-1].usage.completion_tokens < 60


def test_n_answers(pipeline: Pipeline) -> None:
    greedy = ask(pipeline, of(n=3))
    assert len({text_of(greedy, i) for i in range(3)}) == 1
    assert greedy[-1].usage.completion_tokens == 72
    seeded = [ask(pipeline, of(n=3, temperature=1.0, seed=7)) for _ in range(2)]
    assert [text_of(seeded[0], i) for i in range(3)] == [text_of(seeded[1], i) for i in range(3)]
    assert len({text_of(seeded[0], i) for i in range(3)}) == 3


def test_logit_bias_decides(pipeline: Pipeline) -> None:
    outputs = ask(pipeline, of(logit_bias={70: 100.0}, max_tokens=4))
    assert [i for output in outputs for delta in output.deltas for i in delta.token_ids] == [70] * 4


def test_without_max_tokens_the_context_is_the_limit(pipeline: Pipeline) -> None:
    usage = ask(pipeline, of(max_tokens=None))[-1].usage
    assert usage.prompt_tokens + usage.completion_tokens == MAX_MODEL_LEN


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: of(""), InvalidRequest, "empty"),
        (lambda: of([]), InvalidRequest, "empty"),
        (lambda: of([10**6]), InvalidRequest, "token id 1000000"),
        (lambda: of(stop_token_ids=(10**6,)), InvalidRequest, "stop_token_ids"),
        (lambda: of(logit_bias={10**6: 1.0}), InvalidRequest, "logit_bias"),
        (lambda: of([5] * MAX_MODEL_LEN), ContextLengthExceeded, "256 tokens; the prompt came to 256"),
        (lambda: of([5] * 250), ContextLengthExceeded, "274 were asked for: 250 in the prompt and 24 by max_tokens"),
        (lambda: of("horses " * 400), ContextLengthExceeded, "the context holds 256 tokens"),
        (lambda: of("horses " * 4_000_000), ContextLengthExceeded, "28000000 characters"),
    ],
)
def test_what_can_never_be_answered(
    pipeline: Pipeline, make: Callable[[], Request], error: type[InvalidRequest], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        ask(pipeline, make())
    assert caught.value.param


def test_a_long_chat_is_named_as_such(pipeline: Pipeline) -> None:
    messages = [{"role": "user", "content": "horses " * 500}]
    with pytest.raises(ContextLengthExceeded, match="the messages") as caught:
        ask(pipeline, Request(new_request_id("r"), messages=messages, sampling=GREEDY))
    assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")


def test_exactly_the_context_fits(pipeline: Pipeline) -> None:
    assert ask(pipeline, of([5] * 255, max_tokens=1))[-1].usage.completion_tokens == 1


def test_abort_while_it_runs(pipeline: Pipeline) -> None:
    heard: SimpleQueue[Any] = SimpleQueue()
    request = of(max_tokens=200)
    pipeline.submit(request, heard.put)
    assert heard.get(timeout=60).deltas
    pipeline.abort(request.request_id)
    pipeline.abort(request.request_id)
    while not (output := heard.get(timeout=60)).is_finished:
        continue
    assert output.deltas[0].finish_reason is FinishReason.ABORT


def test_many_threads_at_once_each_as_alone(pipeline: Pipeline) -> None:
    prompts = [f"horse number {i} came from valley {i * i}" for i in range(24)]
    alone = [text_of(ask(pipeline, of(prompt))) for prompt in prompts]
    together: dict[int, str] = {}

    def run(number: int) -> None:
        together[number] = text_of(ask(pipeline, of(prompts[number])))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(len(prompts))] == alone


def test_the_queue_is_bounded(tiny: Path) -> None:
    small = Pipeline.load(tiny, replace(CONFIG, max_num_seqs=1, max_queue=1))
    try:
        requests = [of(max_tokens=200) for _ in range(2)]
        for request in requests:
            small.submit(request, lambda _: None)
        with pytest.raises(QueueFull) as caught:
            small.submit(of(), lambda _: None)
        assert caught.value.retry_after_s >= 1
        for request in requests:
            small.abort(request.request_id)
        assert small.drain(60)
        assert small.stats().num_requests == 0
    finally:
        small.close()


def test_a_callback_that_fails_costs_its_own_request_only(pipeline: Pipeline) -> None:
    called = threading.Event()

    def fail(_: object) -> None:
        called.set()
        raise ZeroDivisionError

    pipeline.submit(of(), fail)
    assert called.wait(60)
    assert text_of(ask(pipeline, of()))


def test_close_ends_what_runs_and_refuses_the_rest(tiny: Path) -> None:
    loaded = Pipeline.load(tiny, CONFIG)
    heard: SimpleQueue[Any] = SimpleQueue()
    loaded.submit(of(max_tokens=200), heard.put)
    loaded.close()
    loaded.close()
    ends = []
    while not heard.empty():
        ends.append(heard.get())
    assert ends[-1].is_finished
    with pytest.raises(EngineDead):
        loaded.submit(of(), heard.put)


def test_loads_that_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        Pipeline.load(tmp_path / "none.gguf", CONFIG)
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(tiny.read_bytes()[:1000])
    with pytest.raises(InvalidModelFile):
        Pipeline.load(torn, CONFIG)
    with pytest.raises(InvalidConfig, match="mmx"):
        Pipeline.load(tiny, replace(CONFIG, isa="mmx"))
    with pytest.raises(InvalidConfig, match="max_model_len"):
        Pipeline.load(tiny, replace(CONFIG, max_model_len=10**6))
    with pytest.raises(InsufficientMemory):
        Pipeline.load(tiny, replace(CONFIG, kv_cache_bytes=1 << 10))


def test_an_exchange_goes_on_from_its_ids(pipeline: Pipeline) -> None:
    chat = replace(of(None), messages=[{"role": "user", "content": "hi"}], with_prompt_ids=True)
    first = ask(pipeline, chat)
    told = [output.prompt_ids for output in first]
    assert len(told[0]) == first[-1].usage.prompt_tokens
    assert not any(told[1:])
    assert not any(output.prompt_ids for output in ask(pipeline, of()))
    context = (*told[0], *(token_id for output in first for delta in output.deltas for token_id in delta.token_ids))
    [told_again, *_] = ask(pipeline, replace(chat, request_id=new_request_id("r"), context=context))
    assert told_again.prompt_ids[: len(context)] == context
    rest = told_again.prompt_ids[len(context) :]
    bos_id = pipeline.tokenizer.bos_id
    assert rest == (told[0][1:] if told[0][0] == bos_id else told[0])


def test_a_context_of_ids_that_there_are_not_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidRequest, match="token id 999999"):
        ask(pipeline, replace(of(None), messages=[{"role": "user", "content": "hi"}], context=(999_999,)))


def test_the_prompts_own_probabilities_come_once(pipeline: Pipeline) -> None:
    outputs = ask(pipeline, of("The horses ate", prompt_logprobs=1, n=2))
    [scores] = [output.prompt_logprobs for output in outputs if output.prompt_logprobs]
    assert outputs[0].prompt_logprobs == scores
    assert b"".join(score.text_bytes for score in scores).decode().strip() == "The horses ate"
    assert math.isnan(scores[0].logprob)
    assert all(score.logprob <= score.top[0][1] <= 0 for score in scores[1:])
    assert [len(output.prompt_logprobs) for output in ask(pipeline, of([5], prompt_logprobs=0))[:2]] == [1, 0]


def test_bad_words_are_not_written(pipeline: Pipeline) -> None:
    assert "near" in text_of(ask(pipeline, of()))
    assert "near" not in text_of(ask(pipeline, of(bad_words=("near",))))
