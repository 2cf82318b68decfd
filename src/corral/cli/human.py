"""Sizes, spans of time and tables as a person reads them; the forms are Ollama's, which scripts parse too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_FOR_EVER_S = 20 * 365 * _DAY  # a keep_alive that is longer means: never
_MAX_CELL = 60  # characters of a value in a table


def size(num_bytes: float) -> str:
    """98 MB, 1.2 GB: powers of 1000, one digit after the point below ten."""
    for unit, name in _UNITS:
        if num_bytes >= unit:
            value = num_bytes / unit
            return f"{int(value)} {name}" if value >= 10 or value == int(value) else f"{value:.1f} {name}"
    return f"{int(num_bytes)} B"


def moment(when: datetime | None, now: datetime | None = None, *, never: str = "Never") -> str:
    """2 hours ago, 4 minutes from now, Forever; `never` in place of None."""
    if when is None:
        return never
    age_s = ((now or datetime.now(UTC)) - when).total_seconds()
    if age_s < -_FOR_EVER_S:
        return "Forever"
    return f"{span(-age_s)} from now" if age_s < 0 else f"{span(age_s)} ago"


def span(seconds: float) -> str:
    """About an hour, 3 weeks: the largest unit that fits twice."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < _MINUTE:
        return f"{whole} second{'s' if whole > 1 else ''}"
    if whole < _HOUR:
        return "About a minute" if whole < 2 * _MINUTE else f"{whole // _MINUTE} minutes"
    hours = round(seconds / _HOUR)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    for least, unit_days, name in ((2 * 365, 365, "years"), (60, 30, "months"), (14, 7, "weeks")):
        if days >= least:
            return f"{days // unit_days} {name}"
    return f"{days} days"


def clock(seconds: float) -> str:
    """1h2m3s, 45s: what is left of a download."""
    whole = int(seconds)
    if whole >= _HOUR:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE}m{whole % _MINUTE}s"
    return f"{whole // _MINUTE}m{whole % _MINUTE}s" if whole >= _MINUTE else f"{whole}s"


def printable(text: str) -> str:
    """`text` without what steers a terminal: names and metadata come from files and servers."""
    return "".join(character if character.isprintable() else "?" for character in text)


def table(rows: Sequence[Sequence[str]], *, gap: int = 4, indent: int = 0) -> str:
    """Rows as lines, columns left-aligned; the last column is not padded."""
    if not rows:
        return ""
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in clean if column < len(row)) for column in range(len(clean[0]))]
    lines = []
    for row in clean:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append((" " * indent + (" " * gap).join(cells)).rstrip())
    return "\n".join(lines)


def short(text: str) -> str:
    """A value that has its place in a table: at most _MAX_CELL characters, the rest an ellipsis."""
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 3] + "..."
