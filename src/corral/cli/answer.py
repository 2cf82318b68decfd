"""What is put to a model and what comes back, wherever the model runs: in this process or in a server."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from corral.request import FinishReason, Usage


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that waits for its next answer.

    Args:
        messages: {"role", "content"} each.
        options: by Ollama's names, and only those that the user has chosen; the model's own fill the rest.
        format: "json", or a JSON schema; None for free text.
        think: None is as the model does by itself.
        keep_alive: how long a server keeps the model; None is as the server does by itself.
    """

    messages: list[dict[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: str | float | None = None

    @property
    def may_drop(self) -> bool:
        """Whether something may be left out of a conversation that is too long: old messages, never the only one."""
        return len([message for message in self.messages if message["role"] != "system"]) > 1


@dataclass(frozen=True, slots=True)
class Piece:
    """What an answer gained: some text, or some of the thinking before it."""

    text: str = ""
    thinking: str = ""


@dataclass
class Answer:
    """What is known of an answer; complete once its stream has ended."""

    text: str = ""
    thinking: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)
    load_s: float = 0.0
    prompt_s: float = 0.0  # until the first token
    eval_s: float = 0.0
    total_s: float = 0.0  # with the load
    num_evaluated: int | None = None  # tokens made in eval_s, where that is not all of them

    def add(self, piece: Piece) -> Piece:
        self.text += piece.text
        self.thinking += piece.thinking
        return piece


class AnsweringModel(Protocol):
    """A model that is ready. `name` is as the user gave it."""

    @property
    def name(self) -> str: ...

    @property
    def is_embedding(self) -> bool:
        """It makes embeddings and no answers."""
        ...

    def load(self, keep_alive: str | float | None, options: Mapping[str, Any]) -> None:
        """Have it ready before the first question. Raises CorralError."""
        ...

    def stream(self, question: Question, answer: Answer) -> Generator[Piece]:
        """The answer as it comes, noted in `answer` too; closing it stops the model.

        Raises:
            CorralError: whatever the model says in place of an answer.
        """
        ...

    def embed(self, text: str, *, truncate: bool | None, dimensions: int | None) -> list[float]:
        """The text's embedding, of length 1. Raises InvalidRequest if the model makes none."""
        ...

    def close(self) -> None:
        """Gives back what this process holds for it. Idempotent."""
        ...


def timings(answer: Answer) -> str:
    """The lines of --verbose, as Ollama prints them, and the share of the prompt that was cached."""
    usage = answer.usage
    num_evaluated = usage.completion_tokens if answer.num_evaluated is None else answer.num_evaluated
    rows = [
        ("total duration", _duration(answer.total_s)),
        ("load duration", _duration(answer.load_s)),
        ("prompt eval count", f"{usage.prompt_tokens} token(s), {usage.cached_tokens} of them cached"),
        ("prompt eval duration", _duration(answer.prompt_s)),
        ("prompt eval rate", _rate(usage.prompt_tokens - usage.cached_tokens, answer.prompt_s)),
        ("eval count", f"{usage.completion_tokens} token(s)"),
        ("eval duration", _duration(answer.eval_s)),
        ("eval rate", _rate(num_evaluated, answer.eval_s)),
    ]
    return "\n".join(f"{label + ':':<22}{value}" for label, value in rows)


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}ms" if seconds < 1 else f"{seconds:.2f}s"


def _rate(num_tokens: int, seconds: float) -> str:
    return f"{num_tokens / seconds:.2f} tokens/s" if seconds > 0 else "-"
