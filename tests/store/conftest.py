"""Fixtures of the store's tests: fakes of the hub and the index, and a pip that knows the fake index only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from corral.store.http_client import Patience
from tests.support.fake_hub import FakeHub, FakeIndex, fake_hub, fake_index


@pytest.fixture
def patience() -> Patience:
    return Patience(connect_s=2.0, answer_s=5.0, stall_s=5.0, retries=2, backoff_s=0.001)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pip's settings, nor netrc, nor a stored token of whoever runs the tests."""
    for name in [n for n in os.environ if n.startswith(("PIP_", "HF_")) or n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))
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
