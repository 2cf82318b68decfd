"""What a user types: command lines without this machine's folders, and the steps of the ledger of ease."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from corral.compare.engines.engine import HOST


def typed(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """As one would type it: settings in front, the program's and every file's name without its folder."""
    parts = [*(f"{name}={_plain(value)}" for name, value in environment.items()), *map(_plain, argv)]
    if parts[len(environment) + 1 : len(environment) + 3] == ["-m", "corral"]:
        parts[len(environment) : len(environment) + 3] = ["corral"]  # `python -m corral` is what its script runs
    return shlex.join(parts)


def question(name: str, port: int) -> str:
    """The first request, the same for all."""
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return f"curl http://{HOST}:{port}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def _plain(part: str) -> str:
    option, equals, value = part.partition("=")
    if equals and option.startswith("-") and Path(value).is_absolute():
        return f"{option}={Path(value).name}"
    return Path(part).name if Path(part).is_absolute() else part
