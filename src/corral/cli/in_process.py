"""A model that runs in this process, for one person."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Generator, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from corral.cli.answer import Answer, Piece, Question
from corral.cli.progress import show_status
from corral.cli.terminal import load_progress
from corral.config import EngineConfig
from corral.errors import CorralError
from corral.request import FinishReason, Overflow, Request, RequestOutput, new_request_id

if TYPE_CHECKING:
    from corral.store.local_model import LocalModel


class Engine(Protocol):
    """What is needed of a worker.pipeline.Pipeline."""

    @property
    def info(self) -> Any: ...  # worker.info.ModelInfo, whose import can wait

    def submit(self, request: Request, on_output: Callable[[RequestOutput | CorralError], None]) -> object: ...
    def abort(self, request_id: str) -> None: ...
    def close(self) -> None: ...


class InProcessModel:
    """A loaded model; `load_s` is told with its first answer."""

    def __init__(self, name: str, local: LocalModel, engine: Engine, load_s: float) -> None:
        self._name = name
        self.local = local
        self._engine = engine
        self._load_s = load_s

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_embedding(self) -> bool:
        return bool(getattr(self._engine.info, "is_embedding", False))

    def load(self, keep_alive: str | float | None, options: Mapping[str, Any]) -> None:
        """It is ready, and stays as long as this process."""

    def stream(self, question: Question, answer: Answer) -> Generator[Piece]:
        request = make_request(self.local, question)
        answer.load_s, self._load_s = self._load_s, 0.0
        return stream(self._engine, request, answer)

    def embed(self, text: str, *, truncate: bool | None, dimensions: int | None) -> list[float]:
        from corral.request import EmbedRequest

        embed = getattr(self._engine, "embed")  # noqa: B009
        request = EmbedRequest(new_request_id("run"), self._name, [text], truncate is not False, dimensions)
        vector = array("f")
        vector.frombytes(embed(request).embeddings[0])
        return vector.tolist()

    def close(self) -> None:
        self._engine.close()


def load(name: str, config: EngineConfig, *, insecure: bool = False) -> InProcessModel:
    """The model in this process, with progress on stderr for a person; it is pulled first if it is not here."""
    from corral.store import resolve

    started = time.perf_counter()
    with show_status() as on_status:
        local = resolve(name, on_status)
    from corral.worker.loading import load_pipeline

    with load_progress() as on_load:
        pipeline = load_pipeline(local.path, config, on_load, on_load.show_plan)
    return InProcessModel(name, local, pipeline, time.perf_counter() - started)


def make_request(local: LocalModel, question: Question) -> Request:
    """`question` as the engine takes it, with what the model's Modelfile adds.

    Raises:
        InvalidRequest: an option out of range, or a format that is none.
    """
    from corral.protocol.ollama.call import read_format
    from corral.protocol.ollama.options import check_options, context_of, sampling_of
    from corral.server.model_defaults import apply

    request = Request(
        new_request_id("run"),
        local.name,
        messages=question.messages,
        sampling=sampling_of(check_options({**local.parameters, **question.options})),
        think=question.think,
        grammar=read_format(question.format),
        max_context=context_of(question.options),
        overflow=Overflow.DROP_OLDEST if question.may_drop else Overflow.REFUSE,
    )
    return apply(local, request)


def stream(engine: Engine, request: Request, answer: Answer) -> Generator[Piece]:
    """The pieces of the answer, noted in `answer` too.

    Raises:
        CorralError: whatever the engine says in place of an answer.
    """
    outputs: SimpleQueue[RequestOutput | CorralError] = SimpleQueue()
    started = time.perf_counter()
    engine.submit(request, outputs.put)
    is_finished = False
    try:
        while not is_finished:
            output = outputs.get()
            if isinstance(output, CorralError):
                is_finished = True
                raise output
            is_finished = output.is_finished
            _note(answer, output, time.perf_counter() - started)
            for delta in output.deltas:
                answer.finish_reason = delta.finish_reason or answer.finish_reason
                yield answer.add(Piece(delta.text, delta.thinking))
    finally:
        if not is_finished:
            engine.abort(request.request_id)
            answer.finish_reason = FinishReason.ABORT


def _note(answer: Answer, output: RequestOutput, elapsed_s: float) -> None:
    answer.usage = output.usage
    if output.usage.completion_tokens and not answer.prompt_s:
        answer.prompt_s = elapsed_s
    answer.eval_s = max(elapsed_s - answer.prompt_s, 0.0) if answer.prompt_s else 0.0
    answer.total_s = answer.load_s + elapsed_s
    # The first token comes with the prompt: the time after it made the others.
    answer.num_evaluated = max(output.usage.completion_tokens - 1, 0)
