from __future__ import annotations

from dataclasses import replace

from corral.request import Delta, FinishReason, Request, RequestOutput
from corral.sampling_params import SamplingParams
from corral.text.tools.detect import HERMES
from corral.tool_call import ToolCallDelta, ToolChoice
from corral.worker.answering import Answering
from corral.worker.merge import merge
from tests.worker.test_answering import PROMPT, Heard, ids, step, tokenizer

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def heard_of(text: str, end: FinishReason | None, *, is_parallel: bool = True, stop: tuple[str, ...] = ()) -> Heard:
    heard = Heard()
    request = Request(
        "r",
        messages=[],
        tools=TOOLS,
        tool_choice=ToolChoice(is_parallel=is_parallel),
        sampling=SamplingParams(stop=stop),
    )
    prompt = replace(PROMPT, tool_style=HERMES)
    one = Answering(request, prompt, tokenizer(), heard.outputs.append, heard.finished.append)
    for token_id in ids(text):
        one.on_step((step((token_id,)),))
    if end is not None:
        one.on_step((step(end=end),))
    return heard


def calls_of(heard: Heard) -> list[ToolCallDelta]:
    outputs = [output for output in heard.outputs if isinstance(output, RequestOutput)]
    return [call for output in outputs for delta in output.deltas for call in delta.tool_calls]


def test_an_answer_that_called_ends_with_its_calls() -> None:
    heard = heard_of(CALL, FinishReason.STOP)
    assert "".join(call.arguments for call in calls_of(heard)) == '{"a": 1}'
    assert heard.text() == ""
    assert heard.last.deltas[0].finish_reason is FinishReason.TOOL_CALLS
    assert heard_of("no call", FinishReason.STOP).last.deltas[0].finish_reason is FinishReason.STOP
    assert heard_of(CALL, FinishReason.LENGTH).last.deltas[0].finish_reason is FinishReason.LENGTH


def test_a_call_that_is_cut_off_is_neither_whole_nor_broken() -> None:
    calls = calls_of(heard_of(CALL[:45], FinishReason.LENGTH))
    assert calls
    assert not any(call.is_whole or call.broken for call in calls)
    assert calls_of(heard_of(CALL[:45], FinishReason.STOP))[-1].broken == CALL[:45]


def test_the_engine_is_told_to_stop_after_the_only_call() -> None:
    heard = heard_of(CALL + CALL, None, is_parallel=False)
    assert heard.finished == [0]
    assert heard.last.deltas[0].finish_reason is FinishReason.TOOL_CALLS
    assert sum(call.is_whole for call in calls_of(heard)) == 1


def test_merging_keeps_what_follows_a_broken_call_behind_it() -> None:
    def output(*calls: ToolCallDelta, text: str = "") -> RequestOutput:
        return RequestOutput("r", (Delta(0, text, tool_calls=calls),))

    broken, whole = ToolCallDelta(0, broken="<x>"), ToolCallDelta(1, "f", "{}", is_whole=True)
    delta = merge(output(broken, text="a"), output(whole, text="b")).deltas[0]
    assert (delta.text, delta.tool_calls) == ("a", (ToolCallDelta(0, broken="<x>b"), whole))
