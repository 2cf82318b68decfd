"""Further variables that a request gives to a chat template."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from corral.errors import InvalidRequest

PARAM = "chat_template_kwargs"
_MAX_CHARS = 1 << 20  # of all values, as JSON; documents are among them


def check_kwargs(kwargs: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuses what the template does not read, or may not be told.

    Raises:
        InvalidRequest: names the variable.
    """
    for name in kwargs:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(f"{PARAM} has {name!r:.80}; this model's template takes {listed}", param=PARAM)
    try:
        num_chars = len(json.dumps(kwargs))
    except (ValueError, RecursionError, TypeError):
        raise InvalidRequest(f"{PARAM} is nested too deeply", param=PARAM) from None
    if num_chars > _MAX_CHARS:
        raise InvalidRequest(f"{PARAM} has {num_chars} characters; {_MAX_CHARS} are allowed", param=PARAM)
