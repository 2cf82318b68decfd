"""Fields that change nothing here: told in a header and in the log, never dropped silently."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from starlette.requests import Request as HTTPRequest

IGNORED_HEADER = "X-Corral-Ignored"
_MAX_NAMES = 32  # that a header repeats
_MAX_NAME_LENGTH = 80  # characters

logger = logging.getLogger("corral.server")


def ignored_fields(http: HTTPRequest) -> list[str] | None:
    """Where a body's reader puts the paths of unknown fields; None, which refuses them, if the server is strict."""
    return [] if http.app.state.settings.config.lenient else None


def ignored_headers(model: str, ignored: Sequence[str] | None) -> dict[str, str]:
    """The headers that tell the client which of its fields changed nothing; the log gets a line."""
    if not ignored:
        return {}
    names = [_printable(name) for name in ignored[:_MAX_NAMES]]
    if len(ignored) > _MAX_NAMES:
        names.append(f"and {len(ignored) - _MAX_NAMES} more")
    listed = ", ".join(names)
    logger.warning("a request to %r gave fields that change nothing here: %s", _printable(model), listed)
    return {IGNORED_HEADER: listed}


def _printable(name: str) -> str:
    """A client's name, fit for a header and a line of the log."""
    shown = "".join(char if char.isascii() and char.isprintable() and char != "," else "?" for char in name)
    return shown if len(shown) <= _MAX_NAME_LENGTH else shown[:_MAX_NAME_LENGTH] + "..."
