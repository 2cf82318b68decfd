"""The figures that are kept of models, keys, routes and refusals. Plain numbers: adding to them costs microseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from corral.histogram import (
    FIRST_TOKEN_S,
    LOAD_S,
    NUM_ANSWERS,
    REQUEST_S,
    REQUEST_TOKENS,
    TOKEN_S,
    Histogram,
)

MAX_KEYS = 200  # that are told apart; more are one
OTHER_KEYS = "other"


@dataclass(eq=False, slots=True)
class ModelBook:
    """Of one model's requests, since the server began.

    Args:
        ends: answers by why they ended.
        first_token_s, gap_s, token_s, latency_s: as clients see them; `token_s` is the mean of an answer.
        queue_s, prefill_s: as the worker measured them; `decode_s` is from the first token to the last.
        load_s: of each load of the model.
        deaths: of its workers, by kind.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    num_replays: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    first_token_s: Histogram = field(default_factory=partial(Histogram, FIRST_TOKEN_S))
    gap_s: Histogram = field(default_factory=partial(Histogram, TOKEN_S))
    token_s: Histogram = field(default_factory=partial(Histogram, TOKEN_S))
    latency_s: Histogram = field(default_factory=partial(Histogram, REQUEST_S))
    queue_s: Histogram = field(default_factory=partial(Histogram, REQUEST_S))
    prefill_s: Histogram = field(default_factory=partial(Histogram, REQUEST_S))
    decode_s: Histogram = field(default_factory=partial(Histogram, REQUEST_S))
    inference_s: Histogram = field(default_factory=partial(Histogram, REQUEST_S))
    load_s: Histogram = field(default_factory=partial(Histogram, LOAD_S))
    request_prompt_tokens: Histogram = field(default_factory=partial(Histogram, REQUEST_TOKENS))
    computed_prompt_tokens: Histogram = field(default_factory=partial(Histogram, REQUEST_TOKENS))
    request_generated_tokens: Histogram = field(default_factory=partial(Histogram, REQUEST_TOKENS))
    max_generated_tokens: Histogram = field(default_factory=partial(Histogram, REQUEST_TOKENS))
    asked_max_tokens: Histogram = field(default_factory=partial(Histogram, REQUEST_TOKENS))
    num_answers: Histogram = field(default_factory=partial(Histogram, NUM_ANSWERS))


@dataclass(eq=False, slots=True)
class KeyBook:
    """Of one key."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


class Books:
    """All of them. Lives on the event loop; other threads may read."""

    def __init__(self) -> None:
        self.models: dict[str, ModelBook] = {}
        self.keys: dict[str, KeyBook] = {}
        self.requests: Counter[tuple[str, str, str]] = Counter()  # by route, method and class of status
        self.durations: dict[tuple[str, str], Histogram] = {}  # by route and method
        self.refusals: Counter[tuple[str, str]] = Counter()  # by cause and protocol

    def of_model(self, name: str) -> ModelBook:
        book = self.models.get(name)
        if book is None:
            book = self.models[name] = ModelBook()
        return book

    def of_key(self, name: str) -> KeyBook:
        """Names come from keys that were made, yet there is an end to what can be told apart."""
        book = self.keys.get(name)
        if book is None:
            if len(self.keys) >= MAX_KEYS:
                name = OTHER_KEYS
            book = self.keys.setdefault(name, KeyBook())
        return book

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """An HTTP request has ended."""
        self.requests[route, method, f"{status // 100}xx"] += 1
        if (histogram := self.durations.get((route, method))) is None:
            histogram = self.durations[route, method] = Histogram(REQUEST_S)
        histogram.add(seconds)

    def loaded(self, model: str, seconds: float) -> None:
        """A worker has loaded the model."""
        self.of_model(model).load_s.add(seconds)

    def died(self, model: str, kind: str) -> None:
        """A worker of the model has died."""
        self.of_model(model).deaths[kind] += 1


def cumulated(histogram: Histogram) -> Iterable[tuple[str, float]]:
    """Prometheus' buckets: the upper bound, and how many values are not above it."""
    so_far = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        so_far += count
        yield ("+Inf" if bound == float("inf") else repr(bound)), float(so_far)
