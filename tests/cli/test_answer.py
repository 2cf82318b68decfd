from __future__ import annotations

from collections.abc import Callable

import pytest

from corral.cli.answer import Answer, stream, timings
from corral.errors import ContextLengthExceeded, CorralError, EngineDead
from corral.request import Delta, FinishReason, Request, RequestOutput, Usage


class Scripted:
    """Gives these outputs to every request."""

    def __init__(self, *outputs: RequestOutput | CorralError) -> None:
        self.outputs = outputs

    def submit(self, request: Request, on_output: Callable[[RequestOutput | CorralError], None]) -> None:
        for output in self.outputs:
            on_output(output)

    def abort(self, request_id: str) -> None:
        raise AssertionError("nobody asked for it")


def output(text: str, tokens: int, reason: FinishReason | None = None) -> RequestOutput:
    usage = Usage(10, tokens, 4)
    return RequestOutput("r", (Delta(0, text, finish_reason=reason),), usage, is_finished=reason is not None)


REQUEST = Request("r", messages=[{"role": "user", "content": "hi"}])


def test_pieces_come_in_order_and_the_answer_holds_them_all() -> None:
    answer = Answer()
    model = Scripted(output("", 0), output("a", 1), output("b", 2), output("c", 3, FinishReason.LENGTH))
    assert list(stream(model, REQUEST, answer)) == ["", "a", "b", "c"]
    assert answer.text == "abc"
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.usage == Usage(10, 3, 4)
    assert 0 < answer.prompt_s <= answer.total_s


def test_an_error_in_place_of_an_output_is_raised() -> None:
    answer = Answer()
    pieces = stream(Scripted(output("a", 1), EngineDead("gone")), REQUEST, answer)
    assert next(pieces) == "a"
    with pytest.raises(EngineDead, match="gone"):
        next(pieces)


def test_a_refusal_is_raised() -> None:
    class Refusing(Scripted):
        def submit(self, request: Request, on_output: Callable[[RequestOutput | CorralError], None]) -> None:
            raise ContextLengthExceeded("too long")

    with pytest.raises(ContextLengthExceeded):
        list(stream(Refusing(), REQUEST, Answer()))


def test_timings_tell_rates_of_what_was_computed() -> None:
    answer = Answer("x", FinishReason.STOP, Usage(110, 21, 10), prompt_s=0.5, total_s=2.5)
    assert timings(answer, load_s=1.0).splitlines() == [
        "total duration:       3.50s",
        "load duration:        1.00s",
        "prompt eval count:    110 token(s), 10 of them cached",
        "prompt eval duration: 500.0ms",
        "prompt eval rate:     200.00 tokens/s",
        "eval count:           21 token(s)",
        "eval duration:        2.00s",
        "eval rate:            10.00 tokens/s",
    ]


def test_an_answer_without_tokens_has_no_rates() -> None:
    assert "eval rate:            -" in timings(Answer(), 0.0)
