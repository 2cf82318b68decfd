from __future__ import annotations

from corral.request import Delta, FinishReason, RequestOutput, Timings, TokenLogprob, Usage
from corral.worker.merge import merge


def test_texts_are_joined_per_answer_in_order() -> None:
    first = RequestOutput("r", (Delta(0, "a", (1,)), Delta(1, "x", (2,))), Usage(5, 2, 1))
    second = RequestOutput("r", (Delta(1, "y", (3,)), Delta(2, "z", (4,))), Usage(5, 4, 1))
    merged = merge(first, second)
    assert merged.deltas == (Delta(0, "a", (1,)), Delta(1, "xy", (2, 3)), Delta(2, "z", (4,)))
    assert (merged.usage, merged.is_finished) == (Usage(5, 4, 1), False)


def test_ends_are_kept() -> None:
    first = RequestOutput("r", (Delta(0, "a"),))
    last = RequestOutput("r", (Delta(0, "b", (), FinishReason.STOP, "stop"),), Usage(1, 2), is_finished=True)
    merged = merge(first, last)
    assert merged.is_finished
    assert merged.deltas == (Delta(0, "ab", (), FinishReason.STOP, "stop"),)


def test_a_late_note_of_acceptance_changes_nothing() -> None:
    spoken = RequestOutput("r", (Delta(0, "a"),), Usage(5, 1, 4), is_finished=True)
    accepted = RequestOutput("r", (), Usage(5))
    assert merge(spoken, accepted) == merge(accepted, spoken) == spoken


def test_logprobs_stay_with_their_tokens() -> None:
    one, two = (TokenLogprob(i, bytes([i]), -float(i), ((b"x", -0.5),)) for i in (1, 2))
    first = RequestOutput("r", (Delta(0, "", (1,), logprobs=(one,)),))
    second = RequestOutput("r", (Delta(0, "ab", (2,), logprobs=(two,)),))
    assert merge(first, second).deltas == (Delta(0, "ab", (1, 2), logprobs=(one, two)),)


def test_thinking_and_the_prompts_ids_stay() -> None:
    first = RequestOutput("r", (Delta(0, "", (1,), thinking="h"),), Usage(2, 1), prompt_ids=(7, 8))
    second = RequestOutput("r", (Delta(0, "a", (2,), thinking="m"),), Usage(2, 2))
    merged = merge(first, second)
    assert merged.deltas == (Delta(0, "a", (1, 2), thinking="hm"),)
    assert merged.prompt_ids == merge(RequestOutput("r", usage=Usage(2)), first).prompt_ids == (7, 8)


def test_times_are_told_once_wherever_they_were() -> None:
    timings = Timings(0.5, 0.25)
    accepted = RequestOutput("r", (), Usage(2))
    first = RequestOutput("r", (Delta(0, "a", (1,)),), Usage(2, 1), timings=timings)
    second = RequestOutput("r", (Delta(0, "b", (2,)),), Usage(2, 2))
    assert merge(accepted, first).timings == merge(first, second).timings == merge(first, accepted).timings == timings
    assert merge(second, second).timings is None
