from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral.cli.answer import Answer, Piece, Question
from corral.cli.in_process import InProcessModel, make_request, stream
from corral.errors import ContextLengthExceeded, CorralError, EngineDead, InvalidRequest, UnsupportedModel
from corral.grammar import Grammar, GrammarKind
from corral.request import Delta, EmbedRequest, EmbedResult, FinishReason, Overflow, Request, RequestOutput, Usage
from corral.store.local_model import LocalModel
from corral.worker.info import ModelInfo

REQUEST = Request("r", messages=[{"role": "user", "content": "hi"}])
HELLO = {"role": "user", "content": "hello"}


class Scripted:
    """Gives these outputs to every request."""

    def __init__(self, *outputs: RequestOutput | CorralError) -> None:
        self.outputs = outputs
        self.aborted: list[str] = []
        self.info = ModelInfo("scripted", "llama", 100, 100, 10, "none", 1, 1, 0.0)

    def submit(self, request: Request, on_output: Callable[[RequestOutput | CorralError], None]) -> None:
        for output in self.outputs:
            on_output(output)

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    def embed(self, request: EmbedRequest) -> EmbedResult:
        assert request.inputs == ["text"]
        return EmbedResult("r", [b"\x00\x00\x80?\x00\x00\x00\xbf"], 1)

    def close(self) -> None:
        self.outputs = ()


def output(text: str, tokens: int, reason: FinishReason | None = None, thinking: str = "") -> RequestOutput:
    usage = Usage(10, tokens, 4)
    delta = Delta(0, text, finish_reason=reason, thinking=thinking)
    return RequestOutput("r", (delta,), usage, is_finished=reason is not None)


def test_pieces_come_in_order_and_the_answer_holds_them_all() -> None:
    answer = Answer(load_s=1.0)
    model = Scripted(output("", 0), output("a", 1, thinking="t"), output("b", 2), output("c", 3, FinishReason.LENGTH))
    assert list(stream(model, REQUEST, answer)) == [Piece(), Piece("a", "t"), Piece("b"), Piece("c")]
    assert (answer.text, answer.thinking) == ("abc", "t")
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.usage == Usage(10, 3, 4)
    assert answer.num_evaluated == 2
    assert 0 < answer.prompt_s <= answer.total_s - 1.0
    assert model.aborted == []


def test_an_error_in_place_of_an_output_is_raised() -> None:
    model = Scripted(output("a", 1), EngineDead("gone"))
    pieces = stream(model, REQUEST, Answer())
    assert next(pieces) == Piece("a")
    with pytest.raises(EngineDead, match="gone"):
        next(pieces)
    assert model.aborted == []


def test_leaving_early_stops_the_engine() -> None:
    model, answer = Scripted(output("a", 1), output("b", 2)), Answer()
    pieces = stream(model, REQUEST, answer)
    next(pieces)
    pieces.close()
    assert model.aborted == ["r"]
    assert answer.finish_reason is FinishReason.ABORT


def test_a_refusal_is_raised() -> None:
    class Refusing(Scripted):
        def submit(self, request: Request, on_output: Callable[[RequestOutput | CorralError], None]) -> None:
            raise ContextLengthExceeded("too long")

    with pytest.raises(ContextLengthExceeded):
        list(stream(Refusing(), REQUEST, Answer()))


def test_the_modelfile_fills_what_the_user_left_open() -> None:
    local = LocalModel(
        "m", Path("m"), (Path("a.gguf"),), template="T", system="S",
        parameters={"temperature": 0.3, "top_k": 5, "num_ctx": 64}, messages=({"role": "user", "content": "first"},),
    )  # fmt: skip
    request = make_request(local, Question([HELLO], {"temperature": 0.7, "stop": ["x"]}, think="high"))
    assert request.messages == [{"role": "system", "content": "S"}, {"role": "user", "content": "first"}, HELLO]
    assert (request.template, request.adapter, request.think, request.max_context) == ("T", "a.gguf", "high", 64)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.stop) == (0.7, 5, 0.9, ("x",))
    own = [{"role": "system", "content": "mine"}, HELLO]
    assert make_request(LocalModel("m", Path("m"), system="S"), Question(own)).messages == own


def test_what_cannot_be_obeyed_is_refused() -> None:
    local = LocalModel("m", Path("m"))
    with pytest.raises(InvalidRequest, match="invalid format: yaml"):
        make_request(local, Question([HELLO], format="yaml"))
    with pytest.raises(InvalidRequest, match="top_p"):
        make_request(local, Question([HELLO], {"top_p": "much"}))
    with pytest.raises(UnsupportedModel, match="adapter"):
        make_request(LocalModel("m", Path("m"), (Path("a"), Path("b"))), Question([HELLO]))


@pytest.mark.parametrize(
    ("asked", "grammar"),
    [
        (None, None),
        ("json", Grammar(GrammarKind.JSON_OBJECT)),
        ({"type": "object"}, Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object"}')),
    ],
)
def test_a_format_is_a_grammar(asked: str | dict[str, Any] | None, grammar: Grammar | None) -> None:
    assert make_request(LocalModel("m", Path("m")), Question([HELLO], format=asked)).grammar == grammar


def test_the_load_is_told_with_the_first_answer() -> None:
    model = InProcessModel("m", LocalModel("m", Path("m")), Scripted(output("a", 1, FinishReason.STOP)), load_s=2.0)
    for load_s in (2.0, 0.0):
        answer = Answer()
        list(model.stream(Question([HELLO]), answer))
        assert answer.load_s == load_s


def test_embeddings_are_floats() -> None:
    model = InProcessModel("m", LocalModel("m", Path("m")), Scripted(), load_s=0.0)
    assert model.embed("text", truncate=None, dimensions=None) == [1.0, -0.5]
    assert not model.is_embedding


def test_old_messages_may_be_left_out_but_not_the_only_one() -> None:
    def overflow(*messages: dict[str, str]) -> Overflow:
        return make_request(LocalModel("m", Path("m")), Question(list(messages))).overflow

    system = {"role": "system", "content": "s"}
    assert overflow(HELLO) is Overflow.REFUSE
    assert overflow(system, HELLO) is Overflow.REFUSE
    assert overflow(HELLO, {"role": "assistant", "content": "a"}, HELLO) is Overflow.DROP_OLDEST
