"""Usage as it is asked for and shown: on the command line, at /admin/usage and at /usage."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from corral.errors import InvalidRequest
from corral.server.usage.store import BY, Line, Question
from corral.server.windows import day_name, day_of

DEFAULT_DAYS, MAX_DAYS = 30, 36_500
DEFAULT_BY = ("key",)
_COLUMNS = {"day": ("day",), "key": ("key_id", "key_name"), "model": ("model",)}
# What a spreadsheet takes for the beginning of a formula; names of keys and models are whatever somebody typed.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def question_of(
    now: float,
    days: int = DEFAULT_DAYS,
    by: Sequence[str] = DEFAULT_BY,
    keys: Sequence[str] = (),
    models: Sequence[str] = (),
    key_id: str | None = None,
) -> Question:
    """The question about the last `days` UTC days, this one included.

    Args:
        now: Unix seconds.

    Raises:
        InvalidRequest: it cannot be asked; `param` names what is wrong.
    """
    if not 1 <= days <= MAX_DAYS:
        raise InvalidRequest(f"days is {days}; it must be from 1 to {MAX_DAYS}", param="days", code="invalid_value")
    for name in by:
        if name not in BY:
            message = f"by has {name[:60]!r}; it must be one or more of {', '.join(BY)}"
            raise InvalidRequest(message, param="by", code="invalid_value")
    today = day_of(now)
    first = max(0, today - days + 1)
    return Question(day_name(first), day_name(today), tuple(dict.fromkeys(by)), tuple(keys), tuple(models), key_id)


def payload_of(question: Question, lines: Iterable[Line]) -> dict[str, Any]:
    """As JSON tells it."""
    return {
        "object": "list",
        "from": question.first,
        "to": question.last,
        "by": list(question.by),
        "data": [_row(question, line) for line in lines],
    }


def csv_of(question: Question, lines: Iterable[Line]) -> str:
    """As RFC 4180 has it, with a line of names first. No cell is a formula, whatever keys and models are called."""
    out = io.StringIO(newline="")
    names = list(_row(question, Line()))
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _safe(value) for name, value in _row(question, line).items()})
    return out.getvalue()


def _row(question: Question, line: Line) -> dict[str, Any]:
    totals = line.totals
    groups = {column: getattr(line, column) for name in question.by for column in _COLUMNS[name]}
    return {
        **groups,
        **{name: _rounded(value) for name, value in asdict(totals).items()},
        "total_tokens": totals.prompt_tokens + totals.completion_tokens,
        "latency_mean_s": _rounded(totals.latency_s / totals.requests) if totals.requests else None,
        "ttft_mean_s": _rounded(totals.ttft_s / totals.answered) if totals.answered else None,
    }


def _rounded(value: float) -> float:
    return round(value, 4) if isinstance(value, float) else value


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
