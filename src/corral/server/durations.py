"""Lengths of time in settings, by the rules of Ollama's."""

from __future__ import annotations

from corral.protocol.ollama.duration import parse_duration


def parse_seconds(text: str) -> float:
    """Seconds of "300", "5m" or "-1"; inf for "inf".

    Raises:
        InvalidRequest: it is neither a number nor a duration.
    """
    try:
        seconds = float(text)
    except ValueError:
        return parse_duration(text)
    return -1.0 if seconds != seconds else seconds
