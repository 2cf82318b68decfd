from __future__ import annotations

import json

import pytest

from corral import errors
from corral.protocol.openai import errors as openai_errors
from corral.protocol.openai.models import ModelCard, encode_model_list


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"),
    [
        (errors.InvalidRequest("bad", param="n"), 400, None, {}),
        (errors.ContextLengthExceeded("long", param="messages"), 400, "context_length_exceeded", {}),
        (errors.ModelNotFound("no such model"), 404, "model_not_found", {}),
        (errors.QueueFull("full", retry_after_s=7), 503, "queue_full", {"Retry-After": "7"}),
        (errors.ServerDraining("closing"), 503, "server_draining", {"Retry-After": "5"}),
        (errors.EngineDead("signal 11 at /secret/path"), 503, "engine_dead", {"Retry-After": "5"}),
        (errors.InsufficientMemory("no room"), 503, "insufficient_memory", {}),
        (errors.InvalidModelFile("/secret/path", 5, "torn"), 500, "internal_error", {}),
        (ValueError("at /secret/path"), 500, "internal_error", {}),
    ],
)
def test_status_and_code(error: Exception, status: int, code: str | None, headers: dict[str, str]) -> None:
    reply = openai_errors.reply_to(error)
    assert (reply.status, reply.code, reply.headers) == (status, code, headers)
    payload = json.loads(reply.body())
    assert set(payload) == {"error"}
    assert set(payload["error"]) == {"message", "type", "param", "code"}
    assert "/secret" not in payload["error"]["message"]
    assert reply.event() == b"data: " + reply.body() + b"\n\n"


def test_every_error_class_has_a_reply() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(classes) > 10
    arguments: dict[type, tuple[object, ...]] = {
        errors.InvalidModelFile: ("path", 0, "fault"),
        errors.InvalidManifest: ("origin", "fault"),
        errors.InvalidModelfile: ("fault", 3),
        errors.InvalidVocabulary: ("key", "fault"),
        errors.StorageError: ("fault", "failed"),
        errors.LimitExceeded: ("n", 2, 1),
        errors.QuotaExceeded: ("used up", "tokens", 7),
    }
    for cls in classes:
        assert 400 <= openai_errors.reply_to(cls(*arguments.get(cls, ("text",)))).status < 600


def test_key_errors_say_how_to_authenticate() -> None:
    reply = openai_errors.unauthorized("no key")
    assert (reply.status, reply.code) == (401, "invalid_api_key")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def test_model_list() -> None:
    assert encode_model_list([ModelCard("m", 12, 8192)]) == {
        "object": "list",
        "data": [
            {
                "id": "m",
                "object": "model",
                "created": 12,
                "owned_by": "corral",
                "root": "m",
                "parent": None,
                "max_model_len": 8192,
            }
        ],
    }
