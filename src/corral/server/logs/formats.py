"""A line of the log as text for people, and as JSON for programs. Neither can be made to hold another line."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from corral.logs import LogLine

_INDENT = "\n    "
# Whatever ends a line or steers a terminal, but for the line feed; C1 and bidirectional controls too.
_STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text on one line, with what is no character of it escaped."""
    return _STEERING.sub(_escaped, text).replace("\n", "\\n")


def encode_text(line: LogLine) -> str:
    """Time, level if it is not info, message, request. What follows within one event is indented."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.time))
    level = "" if line.level == "info" else f"{line.level}: "
    request = f" [{line.request_id}]" if line.request_id else ""
    exception = f"\n{line.exception}" if line.exception else ""
    whole = _STEERING.sub(_escaped, f"{level}{line.message}{request}{exception}")
    return f"{at} {_INDENT.join(whole.splitlines())}\n"


def encode_json(line: LogLine) -> str:
    """One object: ts, level, logger, message, and what else is known."""
    at = datetime.fromtimestamp(line.time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    told: dict[str, Any] = {"ts": at, "level": line.level, "logger": line.logger, "message": line.message}
    if line.request_id:
        told["request_id"] = line.request_id
    if line.exception:
        told["exception"] = line.exception
    for name, value in line.fields.items():
        told.setdefault(name, value)
    try:
        encoded = msgspec.json.encode(told, enc_hook=str)
    except (TypeError, ValueError, OverflowError):  # half of a surrogate pair, or what is no JSON
        encoded = msgspec.json.encode(_plain(told))
    # JSON lets stand what some readers take for the end of a line.
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()) + "\n"


def _plain(value: Any) -> Any:
    """The value with what JSON cannot say written out."""
    match value:
        case dict():
            return {_plain(str(name)): _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case bool() | float() | None:
            return value
    return str(value).encode("utf-8", "backslashreplace").decode()


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
