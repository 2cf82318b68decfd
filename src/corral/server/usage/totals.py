"""The figures that are kept of a key, a model and a day. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

MAXIMA = ("latency_max_s", "ttft_max_s")


@dataclass(slots=True)
class Totals:
    """Sums, and maxima where the name says so.

    Args:
        requests: that used the model, failed ones too; each HTTP request is one.
        errors: of these, those that failed.
        refusals: requests that were turned away before they cost anything.
        prompt_tokens, cached_tokens, completion_tokens: of prompts, of these from the cache, and of answers.
        latency_s, latency_max_s: seconds from a request's first byte to its answer's last, of `requests`.
        answered: requests that came to a first token; `ttft_s` and `ttft_max_s` are the seconds until it.
    """

    requests: int = 0
    errors: int = 0
    refusals: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    latency_max_s: float = 0.0
    answered: int = 0
    ttft_s: float = 0.0
    ttft_max_s: float = 0.0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Totals:
        """Of a row that has them all; databases give sums of whole numbers in types of their own."""
        values: dict[str, Any] = {}
        for name in FIGURES:
            values[name] = float(row[name]) if name.endswith("_s") else int(row[name])
        return cls(**values)

    def add(self, other: Totals) -> None:
        for name in FIGURES:
            mine, its = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, its) if name in MAXIMA else mine + its)


FIGURES = tuple(field.name for field in fields(Totals))


class Cell(NamedTuple):
    """Whose figures they are.

    Args:
        day: UTC, as 2026-01-31.
        key_id: "" without a key.
        model: "" where a request was refused before its model was known.
    """

    day: str
    key_id: str
    model: str
