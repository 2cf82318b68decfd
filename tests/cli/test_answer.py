from __future__ import annotations

from corral.cli.answer import Answer, Piece, timings
from corral.request import FinishReason, Usage


def test_an_answer_gathers_its_pieces() -> None:
    answer = Answer()
    answer.add(Piece(thinking="hm"))
    assert answer.add(Piece("a")) == Piece("a")
    answer.add(Piece("b"))
    assert (answer.thinking, answer.text) == ("hm", "ab")


def test_timings_tell_rates_of_what_was_computed() -> None:
    usage = Usage(110, 21, 10)
    answer = Answer("x", "", FinishReason.STOP, usage, load_s=1.0, prompt_s=0.5, eval_s=2.0, total_s=3.5)
    answer.num_evaluated = 20
    assert timings(answer).splitlines() == [
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
    assert "eval rate:            -" in timings(Answer())
