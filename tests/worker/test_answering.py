from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest

from corral.engine.output import SequenceOutput, TokenLogprobs
from corral.errors import CorralError, EngineDead
from corral.request import FinishReason, Request, RequestOutput, TokenLogprob
from corral.sampling_params import SamplingParams
from corral.text.chat_template import ChatTemplate
from corral.text.reasoning import Markers
from corral.text.tokenizer import Tokenizer
from corral.worker.answering import Answering
from corral.worker.prompting import Prompt
from tests.support.tiny_vocab import bpe_metadata

PROMPT = Prompt([1, 2, 3, 4, 5], SamplingParams())
NO_TOKENS: dict[str, Any] = {"bos_token": None, "eos_token": None, "control_texts": ()}


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_metadata(bpe_metadata())


@dataclass
class Heard:
    """What came out, and which answers the engine was told to end."""

    outputs: list[RequestOutput | CorralError] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)

    def text(self, index: int = 0) -> str:
        outputs = [output for output in self.outputs if isinstance(output, RequestOutput)]
        return "".join(delta.text for output in outputs for delta in output.deltas if delta.index == index)

    @property
    def last(self) -> RequestOutput:
        assert isinstance(self.outputs[-1], RequestOutput)
        return self.outputs[-1]


def answering(n: int = 1, stop: tuple[str, ...] = ()) -> tuple[Answering, Heard]:
    heard = Heard()
    request = Request("r", prompt="p", sampling=SamplingParams(n=n, stop=stop))
    return Answering(request, PROMPT, tokenizer(), heard.outputs.append, heard.finished.append), heard


def test_the_templates_own_stop_texts_end_an_answer_too() -> None:
    heard = Heard()
    request = Request("r", messages=[{"role": "user", "content": "p"}], sampling=SamplingParams(stop=("\n\n",)))
    prompt = replace(PROMPT, stop_texts=ChatTemplate(None, **NO_TOKENS).stop_texts)
    one = Answering(request, prompt, tokenizer(), heard.outputs.append, heard.finished.append)
    one.on_step((step(tuple(ids("Whoa.<|im_end|>more"))),))
    assert heard.text() == "Whoa."
    assert heard.last.deltas[0].stop_reason == "<|im_end|>"
    assert heard.finished == [0]


def step(token_ids: tuple[int, ...] = (), index: int = 0, end: FinishReason | None = None) -> SequenceOutput:
    stop_token = 2 if end is FinishReason.STOP else None
    return SequenceOutput("r", index, token_ids, end, stop_token, num_cached_tokens=3, num_prompt_tokens=5)


def ids(text: str) -> list[int]:
    return tokenizer().encode(text, add_special=False, parse_special=False)


def test_token_by_token_gives_the_whole_text_and_usage() -> None:
    text = "The horses, naïve and \U0001f40e\U0001f600, ran."
    one, heard = answering()
    for token_id in ids(text):
        one.on_step((step((token_id,)),))
    assert not one.is_finished
    one.on_step((step(end=FinishReason.STOP),))
    assert one.is_finished
    assert heard.text() == text
    assert heard.last.is_finished
    assert (heard.last.deltas[0].finish_reason, heard.last.deltas[0].stop_reason) == (FinishReason.STOP, 2)
    usage = heard.last.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (5, len(ids(text)), 3)
    assert heard.finished == []  # the engine ended it by itself
    for output in heard.outputs:
        assert isinstance(output, RequestOutput)
        assert all("\ufffd" not in delta.text for delta in output.deltas)


def test_a_stop_string_ends_the_answer_and_tells_the_engine() -> None:
    one, heard = answering(stop=("gate", "never"))
    spoken = ids("at the gate of the corral")
    for token_id in spoken:
        one.on_step((step((token_id,)),))
    one.on_step((step(end=FinishReason.STOP),))  # the engine's own end, a step later
    assert heard.text() == "at the "
    assert heard.finished == [0]
    assert heard.last.is_finished
    assert (heard.last.deltas[0].finish_reason, heard.last.deltas[0].stop_reason) == (FinishReason.STOP, "gate")
    assert sum(isinstance(o, RequestOutput) and o.is_finished for o in heard.outputs) == 1


def test_what_only_looked_like_a_stop_string_comes_at_the_end() -> None:
    one, heard = answering(stop=("gateway",))
    for token_id in ids("the gate"):
        one.on_step((step((token_id,)),))
    assert "gate" not in heard.text()
    one.on_step((step(end=FinishReason.LENGTH),))
    assert heard.text() == "the gate"
    assert heard.last.deltas[0].finish_reason is FinishReason.LENGTH


def test_a_character_cut_by_the_length_limit_is_not_lost_in_silence() -> None:
    one, heard = answering()
    half = ids("\U0001f40e")[:1]
    one.on_step((step(tuple(half), end=FinishReason.LENGTH),))
    assert heard.text() == "\ufffd"


def test_answers_end_one_by_one() -> None:
    one, heard = answering(n=2, stop=("gate",))
    left, right = ids("the gate"), ids("the horses ran")
    for number in range(max(len(left), len(right))):
        outputs = [step((spoken[number],), i) for i, spoken in enumerate((left, right)) if number < len(spoken)]
        one.on_step(tuple(outputs))
    assert heard.finished == [0]
    assert not heard.last.is_finished
    one.on_step((step(index=1, end=FinishReason.LENGTH), step(index=0, end=FinishReason.STOP)))
    assert (heard.text(0), heard.text(1)) == ("the ", "the horses ran")
    assert heard.last.is_finished
    assert [delta.index for delta in heard.last.deltas] == [1]


def test_an_error_ends_it_once() -> None:
    one, heard = answering(n=2)
    one.on_step((step(tuple(ids("the"))),))
    one.on_step(EngineDead("gone"))
    one.on_step(EngineDead("again"))
    assert one.is_finished
    assert [type(output) for output in heard.outputs] == [RequestOutput, EngineDead]


@pytest.mark.parametrize("n", [1, 3])
def test_abort_ends_every_answer(n: int) -> None:
    one, heard = answering(n=n)
    one.on_step(tuple(step(index=i, end=FinishReason.ABORT) for i in range(n)))
    assert one.is_finished
    assert {delta.finish_reason for delta in heard.last.deltas} == {FinishReason.ABORT}


def test_logprobs_come_with_their_tokens_though_the_text_is_held_back() -> None:
    one, heard = answering(stop=("horses",))
    first, *rest = ids("horse 🐎")
    logprobs = TokenLogprobs(first, -0.5, (first, rest[-1]), (-0.5, -2.0))
    one.on_step((replace(step((first,)), logprobs=(logprobs,)),))
    (delta,) = heard.last.deltas
    assert delta.text == ""
    piece, part = tokenizer().token_bytes(first), tokenizer().token_bytes(rest[-1])
    assert delta.logprobs == (TokenLogprob(first, piece, -0.5, ((piece, -0.5), (part, -2.0)), (first, rest[-1])),)
    one.on_step((step(tuple(rest)),))
    assert heard.last.deltas[0].logprobs == ()


def test_thinking_is_a_part_of_its_own_and_stop_strings_leave_it_alone() -> None:
    heard = Heard()
    request = Request("r", messages=[{"role": "user", "content": "p"}], sampling=SamplingParams(stop=("gate",)))
    prompt = replace(PROMPT, markers=Markers("<think>", "</think>"), is_thinking=True, dropped_messages=2)
    one = Answering(request, prompt, tokenizer(), heard.outputs.append, heard.finished.append)
    for token_id in ids("at the gate?\n</think>\n\nThe horses. The gate is shut."):
        one.on_step((step((token_id,)),))
    outputs = [output for output in heard.outputs if isinstance(output, RequestOutput)]
    assert "".join(delta.thinking for output in outputs for delta in output.deltas) == "at the gate?"
    assert heard.text() == "The horses. The "
    assert heard.last.deltas[0].stop_reason == "gate"
    assert heard.last.usage.dropped_messages == 2


def test_the_first_output_alone_tells_how_long_it_waited_and_was_prepared() -> None:
    before = time.monotonic()
    one, heard = answering()
    begun_at = time.monotonic()
    one.on_step((replace(step(tuple(ids("a"))), begun_at=begun_at),))
    after = time.monotonic()
    one.on_step((replace(step(tuple(ids("b"))), begun_at=begun_at),))
    first, second = heard.outputs
    assert isinstance(first, RequestOutput)
    assert isinstance(second, RequestOutput)
    assert first.timings is not None
    assert second.timings is None
    assert 0 <= first.timings.queue_s <= begun_at - before
    assert 0 <= first.timings.prefill_s <= after - begun_at
    assert first.timings.queue_s + first.timings.prefill_s <= after - before


def test_an_end_before_any_step_tells_no_times() -> None:
    one, heard = answering()
    one.on_step((step(end=FinishReason.ABORT),))
    assert heard.last.timings is None
