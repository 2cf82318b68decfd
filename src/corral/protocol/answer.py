"""What a request has answered so far: the part of every protocol's encoder that is not its own wording."""

from __future__ import annotations

from collections.abc import Iterable

from corral.request import RequestOutput, Usage


class Answers:
    """Collects the deltas of one request into `num_answers` whole texts."""

    def __init__(self, num_answers: int) -> None:
        self._parts: list[list[str]] = [[] for _ in range(num_answers)]
        self._thinking: list[list[str]] = [[] for _ in range(num_answers)]
        self.finish_reasons: list[str | None] = [None] * num_answers
        self.usage = Usage()

    def add(self, output: RequestOutput) -> None:
        for delta in output.deltas:
            self._parts[delta.index].append(delta.text)
            self._thinking[delta.index].append(delta.thinking)
            if delta.finish_reason is not None:
                self.finish_reasons[delta.index] = delta.finish_reason.value
        self.usage = output.usage

    @property
    def texts(self) -> list[str]:
        return ["".join(parts) for parts in self._parts]

    @property
    def thinking(self) -> list[str]:
        """What each answer was preceded by, for the model itself."""
        return ["".join(parts) for parts in self._thinking]


def total_usage(usages: Iterable[Usage]) -> Usage:
    """The sum over the prompts of one call."""
    prompt = completion = cached = dropped_messages = dropped_tokens = 0
    for usage in usages:
        prompt += usage.prompt_tokens
        completion += usage.completion_tokens
        cached += usage.cached_tokens
        dropped_messages += usage.dropped_messages
        dropped_tokens += usage.dropped_tokens
    return Usage(prompt, completion, cached, dropped_messages, dropped_tokens)


def encode_usage(usage: Usage) -> dict[str, object]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
