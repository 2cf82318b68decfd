"""A request body's bytes -> a JSON object, with limits that hold before any Python object is made."""

from __future__ import annotations

from typing import Any

import msgspec

from corral.errors import InvalidRequest
from corral.limits import MAX_CONTAINERS, MAX_DEPTH, MAX_VALUES

_OPEN = b"[{"
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_json_body(body: bytes) -> dict[str, Any]:
    """Decodes a JSON object; strict JSON, so NaN, Infinity and lone surrogates are refused.

    Raises:
        InvalidRequest: not UTF-8, not JSON, too deep, too many values, or not an object.
    """
    _check_structure(body)
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not valid UTF-8", code="invalid_json") from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        detail = str(error) if isinstance(error, msgspec.DecodeError) else "too deep or out of range"
        raise InvalidRequest(f"the body is not valid JSON: {detail}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    return value


def _check_structure(body: bytes) -> None:
    # Only bulk bytes operations until the counts are known to be small: a hostile body costs no more than a scan.
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > MAX_VALUES:
        raise InvalidRequest(f"the body holds more than {MAX_VALUES // 2} strings", code="invalid_json")
    outside_strings = b"".join(bare.split(b'"')[::2])
    if outside_strings.count(b",") > MAX_VALUES:
        raise InvalidRequest(f"the body holds more than {MAX_VALUES} values", code="invalid_json")
    brackets = outside_strings.translate(None, _NOT_BRACKETS)
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise InvalidRequest(f"the body holds more than {MAX_CONTAINERS} objects and lists", code="invalid_json")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in _OPEN else -1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"the body nests deeper than {MAX_DEPTH} levels", code="invalid_json")
