"""Whatever a process is doing to the store when it dies, the store is whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.store.library import Library
from corral.store.verify import verify
from tests.support.stores import add_model, quiet, step

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for index in range(3):
        (tmp_path / f"file-{index}.gguf").write_bytes(bytes([65 + index]) * 50_000)
    return tmp_path / "models"


def start(root: Path, seed: int, steps: int | None = None) -> subprocess.Popen[bytes]:
    arguments = json.dumps({"root": str(root), "seed": seed, "steps": steps})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])}
    command = [sys.executable, "-m", "tests.support.stores", arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def check_whole(root: Path) -> None:
    """All is well, and the store takes a model at once: no lock has outlived its holder."""
    library = Library(root)
    assert verify(library, on_status=quiet) == []
    add_model(library, "after")
    for model in library.models():
        model.to_local()


def kill_at_random(root: Path, times: int, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(times):
        child = start(root, seed * 1000 + number)
        assert child.stdout is not None
        assert child.stdout.read(1) == b".", child.communicate()[1].decode()  # it is at work
        time.sleep(rng.uniform(0, 0.05))  # the moment is what this test is about
        child.send_signal(signal.SIGKILL)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL, errors.decode()
        check_whole(root)


def test_a_kill_at_any_moment_leaves_the_store_whole(store: Path) -> None:
    kill_at_random(store, times=10, seed=1)


@pytest.mark.slow
def test_a_hundred_kills_leave_the_store_whole(store: Path) -> None:
    kill_at_random(store, times=100, seed=2)


def test_processes_that_write_copy_delete_and_prune_the_same_at_once(store: Path) -> None:
    children = [start(store, seed, steps=60) for seed in range(3)]
    for child in children:
        _, errors = child.communicate(timeout=200)
        assert child.returncode == 0, errors.decode()
        assert errors == b""
    check_whole(store)


@pytest.mark.parametrize("call", ["fsync", "replace", "symlink", "unlink", "mkdir"])
def test_a_failure_of_any_system_call_leaves_the_store_whole(
    call: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill between two steps: the n-th call of a kind fails, for many n."""
    real = getattr(os, call)
    failures = 0
    for number in range(40):
        limit = number % 8
        calls = 0

        def failing(*args: object, **kwargs: object) -> object:
            nonlocal calls, failures
            calls += 1
            if calls > limit:  # noqa: B023 - it is called in this round only
                failures += 1
                raise OSError(errno.EIO, "Input/output error")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            rng = random.Random(number)
            library = Library(store)
            with contextlib.suppress(OSError, CorralError):
                for _ in range(6):
                    step(library, rng)
        check_whole(store)
    assert failures > 0, f"{call} was never called"
