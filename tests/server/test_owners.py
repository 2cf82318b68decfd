"""What belongs to an API key: the prefixes that its prompts leave in the cache, on every protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.responses_api import responses_server

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": ["hi", "you"]},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {**CHAT, "max_tokens": 5},
    "/api/chat": CHAT,
    "/api/generate": {"prompt": "hi", "raw": True},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", CALLS)
def test_each_key_has_its_own_prefixes(tmp_path: Path, path: str, stream: bool) -> None:
    salts = []
    with responses_server(tmp_path / "corral.db", api_keys=("one", "two")) as (url, manager):
        for key in ("one", "two", "one"):
            manager.requests.clear()
            body = {"model": "scripted", "stream": stream, **CALLS[path]}
            assert httpx.post(url + path, json=body, headers={"x-api-key": key}).status_code == 200
            salts.append({request.cache_salt for request in manager.requests})
    first, second, third = salts
    assert len(first) == 1
    assert first == third
    assert first != second
    assert "one" not in "".join(first)


def test_without_keys_a_salt_is_the_requests(tmp_path: Path) -> None:
    with responses_server(tmp_path / "corral.db") as (url, manager):
        httpx.post(f"{url}/v1/chat/completions", json={"model": "scripted", **CHAT, "cache_salt": "mine"})
        httpx.post(f"{url}/v1/chat/completions", json={"model": "scripted", **CHAT})
    assert [request.cache_salt for request in manager.requests] == ["mine", ""]
