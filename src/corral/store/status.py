"""What a long operation on the store tells while it runs: the lines of Ollama's pull, push and create."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """One line.

    Args:
        status: "pulling manifest", "pulling 0123456789ab", "verifying sha256 digest", "success", or a notice.
        digest: "sha256:<hex>" of the layer under way, if one is.
        total, completed: its bytes; 0 where not known.
    """

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


OnStatus = Callable[[Status], None]  # what it raises ends the operation; what has arrived stays for the next try
