"""One answer of a model in this process: its text as it comes, its end, its timings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

from corral.errors import CorralError
from corral.request import FinishReason, Request, RequestOutput, Usage


class AnsweringModel(Protocol):
    """What is needed of a worker.pipeline.Pipeline."""

    def submit(self, request: Request, on_output: Callable[[RequestOutput | CorralError], None]) -> object: ...
    def abort(self, request_id: str) -> None: ...


@dataclass
class Answer:
    """What is known of an answer; complete once `stream` has ended."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)
    prompt_s: float = 0.0  # until the first token
    total_s: float = 0.0


def stream(model: AnsweringModel, request: Request, answer: Answer) -> Iterator[str]:
    """The pieces of the answer, noted in `answer` too.

    Raises:
        CorralError: whatever the model says in place of an answer.
    """
    outputs: SimpleQueue[RequestOutput | CorralError] = SimpleQueue()
    started = time.perf_counter()
    model.submit(request, outputs.put)
    is_finished = False
    while not is_finished:
        output = outputs.get()
        if isinstance(output, CorralError):
            raise output
        answer.total_s = time.perf_counter() - started
        if output.usage.completion_tokens and not answer.prompt_s:
            answer.prompt_s = answer.total_s
        answer.usage, is_finished = output.usage, output.is_finished
        for delta in output.deltas:
            answer.finish_reason = delta.finish_reason or answer.finish_reason
            answer.text += delta.text
            yield delta.text


def timings(answer: Answer, load_s: float) -> str:
    """The lines of --verbose, as Ollama prints them, and the share of the prompt that was cached."""
    usage = answer.usage
    eval_s = max(answer.total_s - answer.prompt_s, 0.0)
    # The first token comes with the prompt: the time after it made the others.
    num_evaluated = max(usage.completion_tokens - 1, 0)
    rows = [
        ("total duration", _duration(load_s + answer.total_s)),
        ("load duration", _duration(load_s)),
        ("prompt eval count", f"{usage.prompt_tokens} token(s), {usage.cached_tokens} of them cached"),
        ("prompt eval duration", _duration(answer.prompt_s)),
        ("prompt eval rate", _rate(usage.prompt_tokens - usage.cached_tokens, answer.prompt_s)),
        ("eval count", f"{usage.completion_tokens} token(s)"),
        ("eval duration", _duration(eval_s)),
        ("eval rate", _rate(num_evaluated, eval_s)),
    ]
    return "\n".join(f"{label + ':':<22}{value}" for label, value in rows)


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}ms" if seconds < 1 else f"{seconds:.2f}s"


def _rate(num_tokens: int, seconds: float) -> str:
    return f"{num_tokens / seconds:.2f} tokens/s" if seconds > 0 else "-"
