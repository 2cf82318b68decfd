"""What a request has answered so far: the part of every protocol's encoder that is not its own wording."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from corral.request import Delta, RequestOutput, TokenLogprob, Usage


@dataclass(slots=True)
class Call:
    """A tool call of a whole answer; `arguments` is JSON's text, cut off where the answer was."""

    name: str
    arguments: str


@dataclass(slots=True)
class _Answer:
    parts: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # of calls, by index
    arguments: dict[int, list[str]] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)


class Answers:
    """Collects the deltas of one request into `num_answers` whole answers."""

    def __init__(self, num_answers: int) -> None:
        self._answers = [_Answer() for _ in range(num_answers)]
        self.finish_reasons: list[str | None] = [None] * num_answers
        self.stop_reasons: list[str | int | None] = [None] * num_answers
        self.prompt_ids: tuple[int, ...] = ()
        self.prompt_logprobs: tuple[TokenLogprob, ...] = ()
        self.num_thinking_tokens = 0
        self.usage = Usage()

    def add(self, output: RequestOutput) -> None:
        for delta in output.deltas:
            self._add(self._answers[delta.index], delta)
            self.num_thinking_tokens += count_thinking(delta)
            if delta.finish_reason is not None:
                self.finish_reasons[delta.index] = delta.finish_reason.value
                self.stop_reasons[delta.index] = delta.stop_reason
        self.prompt_ids += output.prompt_ids
        self.prompt_logprobs += output.prompt_logprobs
        self.usage = output.usage

    def _add(self, answer: _Answer, delta: Delta) -> None:
        answer.parts.append(delta.text)
        answer.thinking.append(delta.thinking)
        answer.logprobs += delta.logprobs
        answer.token_ids += delta.token_ids
        for call in delta.tool_calls:
            if call.broken:
                answer.names.pop(call.index, None)
                answer.arguments.pop(call.index, None)
                answer.parts.append(call.broken)
                continue
            if call.name:
                answer.names[call.index] = call.name
            answer.arguments.setdefault(call.index, []).append(call.arguments)

    @property
    def texts(self) -> list[str]:
        """With the text of what looked like a call and was none."""
        return ["".join(answer.parts) for answer in self._answers]

    @property
    def thinking(self) -> list[str]:
        """What each answer was preceded by, for the model itself."""
        return ["".join(answer.thinking) for answer in self._answers]

    @property
    def calls(self) -> list[list[Call]]:
        """The tool calls of each answer, in order."""
        return [
            [Call(name, "".join(answer.arguments[index])) for index, name in sorted(answer.names.items())]
            for answer in self._answers
        ]

    @property
    def logprobs(self) -> list[list[TokenLogprob]]:
        """Of each answer's tokens, where they were asked for."""
        return [answer.logprobs for answer in self._answers]

    @property
    def token_ids(self) -> list[list[int]]:
        return [answer.token_ids for answer in self._answers]


def count_thinking(delta: Delta) -> int:
    """The tokens of a delta that is thinking and no more: markers, and a token that ends in text, are not counted."""
    return len(delta.token_ids) if delta.thinking and not delta.text and not delta.tool_calls else 0


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


def encode_usage(usage: Usage, num_thinking_tokens: int | None = None) -> dict[str, object]:
    """OpenAI's usage object; the tokens of thinking are among those of the completion."""
    encoded: dict[str, object] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if num_thinking_tokens is not None:
        encoded["completion_tokens_details"] = {"reasoning_tokens": num_thinking_tokens}
    return encoded
