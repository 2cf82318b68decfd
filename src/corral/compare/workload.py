"""What is asked, by how many, and when: the same for every engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

CountTokens = Callable[[str], int]  # tokens of a text by the model's own tokenizer, no template, no special tokens


class Message(TypedDict):
    """Of a chat, as OpenAI's protocol has it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Args:
        messages: of its chat. In a conversation, the user's next words alone: the client puts what came before in
            front.
        max_tokens: of the answer; with `is_exact`, no fewer either, where the engine can be told so.
        response_format: OpenAI's field; None leaves it out.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    is_exact: bool = True
    response_format: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """When the calls of a workload are due.

    Args:
        kind: "closed": `concurrency` clients, each asks again when it is answered. "open": at `rate` requests a second
            with exponential gaps, whatever becomes of those before. "burst": all at once.
        concurrency: of a closed loop.
        rate: of an open loop, per second.
    """

    kind: Literal["closed", "open", "burst"]
    concurrency: int = 1
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    """One load.

    Args:
        name: unique in its profile.
        title: what it shows, in a line of the report.
        calls: repeat -> the conversations to be had, each a sequence of calls one after the other; most have one.
            The same repeat gives the same calls, so every engine gets the same; no two repeats share a beginning
            unless that is what is measured.
        is_streamed: the article's own are not.
        background: calls that run beside and are not measured (a long prompt beside short chats).
    """

    name: str
    title: str
    plan: Plan
    calls: Callable[[int], Sequence[Sequence[Call]]]
    is_streamed: bool = True
    background: Callable[[int], Sequence[Sequence[Call]]] | None = None
    notes: Sequence[str] = field(default_factory=tuple)
