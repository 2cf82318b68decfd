"""Fixtures of the store's tests: fakes of the hub and the index, and a pip that knows the fake index only."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from corral.store.transport.client import Patience
from tests.support.fake_hub import FakeHub, FakeIndex, fake_hub, fake_index
from tests.support.fake_registry import FakeRegistry, fake_registry
from tests.support.gguf_writer import TinyModel, write_tiny_gguf


@functools.cache
def tiny_gguf(seed: int = 0) -> bytes:
    """A sound model file of a few hundred kilobytes."""
    with tempfile.TemporaryDirectory() as folder:
        return write_tiny_gguf(Path(folder) / "tiny.gguf", TinyModel(seed=seed)).read_bytes()


@pytest.fixture
def patience() -> Patience:
    return Patience(connect_s=2.0, answer_s=5.0, stall_s=5.0, retries=2, backoff_s=0.001)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pip's settings, nor netrc, nor a stored token of whoever runs the tests."""
    for name in [n for n in os.environ if n.startswith(("PIP_", "HF_")) or n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in [n for n in os.environ if n.startswith(("CORRAL_", "OLLAMA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def use_hub(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when huggingface_hub is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        use_hub(hub.hub.url, monkeypatch)
        yield hub


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    with fake_index() as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry
