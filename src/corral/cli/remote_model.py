"""A model that a Corral server runs: shared with everybody who asks there."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from corral.cli.answer import Answer, Piece, Question
from corral.errors import CorralError, DownloadError
from corral.request import FinishReason, Usage

if TYPE_CHECKING:
    from corral.cli.native_client import NativeClient

_NS = 1e-9
_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class RemoteModel:
    """A model by its name on a server; `capabilities` are as its card tells."""

    def __init__(self, name: str, client: NativeClient, capabilities: tuple[str, ...]) -> None:
        self._name = name
        self._client = client
        self._capabilities = capabilities

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_embedding(self) -> bool:
        return "embedding" in self._capabilities and "completion" not in self._capabilities

    def load(self, keep_alive: str | float | None, options: Mapping[str, Any]) -> None:
        """Have the server load it, and wait for that."""
        if self.is_embedding:
            self._client.call("POST", "/api/embed", _told({"model": self._name, "input": [], "keep_alive": keep_alive}))
            return
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [],
            "keep_alive": keep_alive,
            "options": dict(options) or None,
        }
        for _ in self._client.stream("/api/chat", _told(body)):
            pass

    def stream(self, question: Question, answer: Answer) -> Generator[Piece]:
        body = {
            "model": self._name,
            "messages": question.messages,
            "options": dict(question.options) or None,
            "format": question.format,
            "think": question.think,
            "keep_alive": question.keep_alive,
            "truncate": None if question.may_drop else False,
            "stream": True,
        }
        is_done = False
        # Closing the connection is how a client tells the server to stop.
        with closing(self._client.stream("/api/chat", _told(body))) as parts:
            try:
                for part in parts:
                    message = part.get("message")
                    if isinstance(message, dict):
                        yield answer.add(Piece(_text(message, "content"), _text(message, "thinking")))
                    if is_done := part.get("done") is True:
                        _note(answer, part)
                        return
            finally:
                if not is_done:
                    answer.finish_reason = FinishReason.ABORT
        raise DownloadError(f"{self._client.address} ended the answer before it was complete")

    def embed(self, text: str, *, truncate: bool | None, dimensions: int | None) -> list[float]:
        body = {"model": self._name, "input": text, "truncate": truncate, "dimensions": dimensions}
        vectors = self._client.call("POST", "/api/embed", _told(body)).get("embeddings")
        if not isinstance(vectors, list) or len(vectors) != 1:
            raise CorralError(f"{self._client.address} sent no embedding")
        return [float(value) for value in vectors[0]]

    def close(self) -> None:
        """Nothing is held here: the server keeps the model as long as it likes."""


def _told(body: dict[str, Any]) -> dict[str, Any]:
    """The body without what the user left open."""
    return {name: value for name, value in body.items() if value is not None}


def _text(message: dict[str, Any], field: str) -> str:
    value = message.get(field)
    return value if isinstance(value, str) else ""


def _note(answer: Answer, part: dict[str, Any]) -> None:
    """The figures of the last line; times are nanoseconds there."""

    def figure(name: str) -> int:
        value = part.get(name)
        return value if isinstance(value, int) else 0

    answer.finish_reason = _REASONS.get(str(part.get("done_reason")), FinishReason.STOP)
    answer.usage = Usage(
        prompt_tokens=figure("prompt_eval_count"),
        completion_tokens=figure("eval_count"),
        cached_tokens=figure("prompt_cached_count"),
        dropped_messages=figure("dropped_messages"),
        dropped_tokens=figure("dropped_tokens"),
    )
    answer.load_s, answer.prompt_s = figure("load_duration") * _NS, figure("prompt_eval_duration") * _NS
    answer.eval_s, answer.total_s = figure("eval_duration") * _NS, figure("total_duration") * _NS
