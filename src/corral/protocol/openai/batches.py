"""OpenAI's batch and file objects, and the checks of what makes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from corral.errors import InvalidRequest
from corral.limits import MAX_BATCH_LINE_BYTES
from corral.protocol.fields import StrictModel, read_fields

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
WINDOW_S = 24 * 3600
MAX_ERRORS = 100  # that a failed batch lists
MIN_EXPIRES_S, MAX_EXPIRES_S = 3600, 30 * 24 * 3600


class ExpiresAfter(StrictModel):
    anchor: Literal["created_at"]
    seconds: int


class BatchFields(StrictModel):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None


def parse_batch(body: Mapping[str, Any]) -> BatchFields:
    """Raises InvalidRequest."""
    fields = read_fields(BatchFields, body, unsupported={}, harmless=frozenset())
    if fields.endpoint not in ENDPOINTS:
        raise InvalidRequest(f"endpoint must be one of {', '.join(ENDPOINTS)}", param="endpoint", code="invalid_value")
    if fields.completion_window != "24h":
        raise InvalidRequest("completion_window must be 24h", param="completion_window", code="invalid_value")
    metadata = fields.metadata or {}
    if len(metadata) > 16 or any(len(name) > 64 or len(value) > 512 for name, value in metadata.items()):
        message = "metadata may have 16 entries, names of 64 and values of 512 characters"
        raise InvalidRequest(message, param="metadata", code="invalid_value")
    if fields.output_expires_after is not None:
        check_expiry(fields.output_expires_after.seconds, "output_expires_after.seconds")
    return fields


def check_expiry(seconds: int, param: str) -> int:
    """Raises InvalidRequest."""
    if not MIN_EXPIRES_S <= seconds <= MAX_EXPIRES_S:
        message = f"{param} is {seconds}; it must be from {MIN_EXPIRES_S} to {MAX_EXPIRES_S}"
        raise InvalidRequest(message, param=param, code="invalid_value")
    return seconds


class LineError(Exception):
    """What is wrong with a line of the input: OpenAI's code, a sentence, and the field."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def parse_line(line: bytes, endpoint: str) -> tuple[str, dict[str, Any]]:
    """custom_id and body.

    Raises:
        LineError: the line cannot be a request to `endpoint`.
    """
    if len(line) > MAX_BATCH_LINE_BYTES:
        raise LineError("line_too_long", f"the line is longer than {MAX_BATCH_LINE_BYTES} bytes")
    try:
        fields = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        raise LineError("invalid_json_line", "the line is not valid JSON") from None
    if not isinstance(fields, dict):
        raise LineError("invalid_json_line", "the line is not a JSON object")
    custom_id, body = fields.get("custom_id"), fields.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= 512:
        raise LineError("invalid_custom_id", "custom_id must be a string of 1 to 512 characters", "custom_id")
    if fields.get("method") != "POST":
        raise LineError("invalid_method", "method must be POST", "method")
    if fields.get("url") != endpoint:
        raise LineError("invalid_url", f"url must be the batch's endpoint, {endpoint}", "url")
    if not isinstance(body, dict):
        raise LineError("invalid_body", "body must be an object", "body")
    if body.get("stream"):
        raise LineError("invalid_body", "stream is not allowed in a batch", "body.stream")
    if unknown := sorted(fields.keys() - {"custom_id", "method", "url", "body"}):
        raise LineError("unknown_parameter", f"unknown field {unknown[0][:60]}", unknown[0][:60])
    return custom_id, body


def new_batch(batch_id: str, fields: BatchFields, created_at: int) -> dict[str, Any]:
    """OpenAI's object of a batch that has just been made."""
    stamps = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    return {
        "id": batch_id,
        "object": "batch",
        "endpoint": fields.endpoint,
        "errors": None,
        "input_file_id": fields.input_file_id,
        "completion_window": fields.completion_window,
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": created_at,
        "expires_at": created_at + WINDOW_S,
        **{f"{stamp}_at": None for stamp in stamps},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": fields.metadata,
    }
