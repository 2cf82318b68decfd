"""No answer tells where a file lies on the server, or whose folder it is in; the log does."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import httpx
import pytest

from corral import errors
from corral.protocol.anthropic.errors import anthropic_error
from corral.protocol.ollama.errors import ollama_error
from corral.protocol.openai.errors import reply_to
from corral.protocol.private import without_folders
from tests.support.gguf_writer import write_tiny_gguf
from tests.support.native_api import native_server

SECRET = "/home/alice/.local/share/corral/models/blobs/sha256-12ab"
FAULTS: list[Exception] = [
    errors.InvalidModelFile(SECRET, 7, "torn"),
    errors.InvalidManifest(SECRET, f"names {SECRET}"),
    errors.UnsupportedModel(f"{SECRET}: family 'x' is not known"),
    errors.DownloadError(f"{SECRET}: the disk is broken"),
    errors.DiskFull(f"no room for '{SECRET}'"),
    errors.InsufficientMemory(f"{SECRET} needs 5 GB"),
    errors.InvalidConfig(f"folder ({SECRET}) is none"),
    errors.StorageError(f"{SECRET}: damaged", "damaged"),
    errors.EngineDead(f"signal 11 in {SECRET}"),
    errors.CorralError(f"{SECRET}: in use"),
    OSError(2, "No such file", SECRET),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_no_error_tells_a_path_of_the_server(fault: Exception) -> None:
    told = (reply_to(fault).message, ollama_error(fault).message, anthropic_error(fault, "req_1").message)
    assert all("alice" not in message and "/" not in message for message in told)


def test_what_is_no_path_stays() -> None:
    for text in ("https://example.com/a/b", "hf.co/org/name:q4", "5 tokens/s and/or 1/2", "use /api/x", "~ / a"):
        assert without_folders(text) == text
    assert without_folders(f"'{SECRET}': torn at ~/models/x.gguf") == "'sha256-12ab': torn at x.gguf"


def test_texts_are_searched_in_linear_time() -> None:
    started = time.process_time()
    for text in ("/-" * 100_000, "/" * 200_000, "/a" * 100_000, "~/" * 100_000):
        without_folders(text)
    assert time.process_time() - started < 5


def test_a_damaged_file_is_told_without_its_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf")
    with native_server(tmp_path / "models", gguf) as server:
        gguf.write_bytes(gguf.read_bytes()[:40])
        with caplog.at_level(logging.ERROR, "corral.server"):
            answers = [
                server.post("/api/show", {"model": "file"}),
                server.post("/api/show", {"model": "file", "verbose": True}),
                httpx.get(f"{server.url}/api/tags"),
                httpx.get(f"{server.url}/v1/models"),
            ]
    assert answers[0].status_code == 500
    assert "damaged" in answers[0].json()["error"]
    assert all(str(tmp_path) not in answer.text for answer in answers)
    assert str(gguf) in caplog.text
