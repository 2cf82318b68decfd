"""What a server in this process would write to stderr."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from corral.config import ServerConfig
from corral.server.logs.output import log_to_stderr


class Log:
    """Whole when its block has ended."""

    def __init__(self) -> None:
        self.text = ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Of a log in JSON."""
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, logger: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["logger"] == logger]


@contextlib.contextmanager
def logged(**config: Any) -> Iterator[Log]:
    """Collects what is logged in the block.

    Args:
        config: fields of ServerConfig; the form is JSON by default.
    """
    log, stream = Log(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with log_to_stderr(ServerConfig(**{"log_format": "json", **config})):
            yield log
        log.text = stream.getvalue()
