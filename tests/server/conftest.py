from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.live_server import LiveServer, live_server


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """One server for a file's tests; each leaves it without a request."""
    with live_server(max_body_bytes=1 << 20) as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=60) as made:
        yield made
