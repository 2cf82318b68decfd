"""What is reached from outside, and what this machine reaches: one port, no other; nothing is fetched for a request."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from corral.errors import EngineDead
from corral.store.catalog import CATALOG
from corral.worker.process import WorkerProcess
from tests.support.live_server import LiveServer, live_server
from tests.support.models import MODELS

ROOT = Path(__file__).parent.parent.parent
LOOK_AT_SOCKET = """
import os, sys
path = sys.argv[sys.argv.index("--socket") + 1]
print("mode", *(oct(os.stat(p).st_mode & 0o777) for p in (path, os.path.dirname(path))), file=sys.stderr)
"""
# Serialised tensors, and media that another server would fetch: the fields in which vLLM and OpenAI take them.
TENSORS = ("prompt_embeds", "image_embeds", "audio_embeds", "multi_modal_data", "mm_processor_kwargs", "input_embeds")
RECIPES = (".ci/run", "justfile", "pyproject.toml", "README.md")


async def test_a_workers_socket_is_its_users_alone() -> None:
    with pytest.raises(EngineDead, match="mode 0o600 0o700"):
        await WorkerProcess.spawn((sys.executable, "-c", LOOK_AT_SOCKET))


def test_a_worker_opens_no_port_and_the_server_one() -> None:
    with live_server() as server:
        assert psutil.Process(server.worker_pid()).net_connections("inet") == []
        listening = [c for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert [c.laddr.ip for c in listening if c.laddr.port == server.address[1]] == ["127.0.0.1"]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as running:
        yield running


class Trap:
    """A port of this machine that nobody has any business with."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/x.png"

    def is_untouched(self) -> bool:
        self.listener.setblocking(False)
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    with made.listener:
        yield made


def bodies_with(url: str) -> list[tuple[str, dict[str, Any]]]:
    image = {"type": "image_url", "image_url": {"url": url}}
    source = {"type": "image", "source": {"type": "url", "url": url}}
    document = {"type": "document", "source": {"type": "url", "url": url}}

    def chat(part: Any, **fields: Any) -> dict[str, Any]:
        return {"model": "scripted", "messages": [{"role": "user", "content": [part]}], **fields}

    return [
        ("/v1/chat/completions", chat(image)),
        ("/v1/chat/completions", chat({"type": "video_url", "video_url": {"url": url}})),
        ("/v1/chat/completions", chat({"type": "file", "file": {"file_url": url}})),
        ("/v1/chat/completions", chat(image | {"image_url": {"url": url.replace("http://", "file://")}})),
        ("/v1/messages", chat(source, max_tokens=1)),
        ("/v1/messages", chat(document, max_tokens=1)),
        ("/v1/messages", chat({"type": "text", "text": "hi"}, max_tokens=1, mcp_servers=[{"type": "url", "url": url}])),
        ("/v1/responses", responses([{"type": "input_image", "image_url": url}])),
        ("/v1/responses", responses([{"type": "input_file", "file_url": url}])),
        ("/v1/responses", responses("hi", tools=[{"type": "mcp", "server_label": "x", "server_url": url}])),
        ("/api/chat", {"model": "scripted", "messages": [{"role": "user", "content": "hi", "images": [url]}]}),
        ("/api/generate", {"model": "scripted", "prompt": "hi", "images": [url]}),
        ("/v1/batches", {"input_file_id": url, "endpoint": "/v1/completions", "completion_window": "24h"}),
    ]


def responses(content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "input": [{"role": "user", "content": content}], **fields}


def test_no_request_makes_the_server_fetch(server: LiveServer, trap: Trap) -> None:
    for path, body in bodies_with(trap.url):
        response = httpx.post(server.url + path, json=body)
        assert 400 <= response.status_code < 500, (path, body, response.text)
        assert trap.is_untouched(), (path, body)


@pytest.mark.parametrize("field", TENSORS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"])
def test_no_tensor_is_taken(server: LiveServer, path: str, field: str) -> None:
    body = {"model": "scripted", "prompt": "hi", "input": "hi", "messages": [{"role": "user", "content": "hi"}]}
    wanted = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}.get(path, "input")
    response = httpx.post(server.url + path, json={"model": "scripted", wanted: body[wanted], field: "gASVAAAA"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


def test_recipes_have_one_index_and_run_nothing_unseen() -> None:
    """A second index may answer with somebody else's package of our dependency's name."""
    recipes = [ROOT / name for name in RECIPES] + [p for p in ROOT.rglob("*ontainerfile") if "build" not in p.parts]
    for recipe in recipes:
        text = recipe.read_text()
        assert "extra-index-url" not in text, recipe
        assert not re.search(r"(curl|wget)\b[^\n]*\|\s*(sudo\s+)?(ba|z)?sh\b", text), recipe


def test_models_we_name_are_known_by_their_digests() -> None:
    artifacts = [entry.artifact for entry in CATALOG] + list(MODELS.values())
    assert all(re.fullmatch(r"[0-9a-f]{64}", artifact.sha256) for artifact in artifacts)
