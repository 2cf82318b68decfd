"""What is wrong with a grammar is found in the worker; each protocol's error names the field that the client wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.responses_api import responses_server

SCHEMA = {"type": "object"}
CHAT = {"messages": [{"role": "user", "content": "no such grammar"}]}
TEXT = {"prompt": "no such grammar"}
NAMED = {"type": "json_schema", "name": "it", "schema": SCHEMA}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}}
ANTHROPIC_FORMAT = {"type": "json_schema", "schema": SCHEMA}
MESSAGES = {**CHAT, "max_tokens": 9}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with responses_server(tmp_path_factory.mktemp("data") / "corral.db") as (url, _):
        yield url


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}, "response_format"),
        ("/v1/chat/completions", {**CHAT, "response_format": RESPONSE_FORMAT}, "response_format.json_schema.schema"),
        ("/v1/chat/completions", {**CHAT, "structured_outputs": {"regex": "a+"}}, "structured_outputs.regex"),
        ("/v1/completions", {**TEXT, "guided_json": SCHEMA}, "guided_json"),
        ("/v1/completions", {**TEXT, "guided_choice": ["a"]}, "guided_choice"),
        ("/v1/completions", {**TEXT, "guided_grammar": 'start: "a"'}, "guided_grammar"),
        ("/v1/completions", {"prompt": ["one", "no such grammar"], "guided_regex": "a"}, "guided_regex"),
        ("/v1/responses", {"input": "no such grammar", "text": {"format": NAMED}}, "text.format.schema"),
        ("/v1/messages", {**MESSAGES, "output_config": {"format": ANTHROPIC_FORMAT}}, "output_config.format.schema"),
        ("/v1/messages", {**MESSAGES, "output_format": ANTHROPIC_FORMAT}, "output_format.schema"),
        ("/api/chat", {**CHAT, "format": SCHEMA}, "format"),
        ("/api/generate", {**TEXT, "format": "json", "raw": True}, "format"),
    ],
)
def test_the_field_is_the_clients(url: str, path: str, body: dict[str, Any], field: str, stream: bool) -> None:
    reply = httpx.post(url + path, json={"model": "scripted", "stream": stream, **body})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message == f"{field}: the JSON Schema is too deep"
    if path.startswith("/v1/") and path != "/v1/messages":
        assert error["param"] == field
