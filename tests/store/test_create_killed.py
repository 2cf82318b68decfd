"""kill -9 at random moments of a create: the store is whole each time, and what was half made can be pruned."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corral.model.tensor_type import TensorType
from corral.store.library import Library
from corral.store.verify import verify
from tests.support.creating import quiet
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_create_leaves_the_store_whole(tmp_path: Path, rounds: int) -> None:
    weights = write_tiny_gguf(tmp_path / "tiny.gguf", TinyModel(tensor_type=TensorType.F16))
    root = tmp_path / "models"
    chance = random.Random(rounds)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])}
    for number in range(rounds):
        command = [sys.executable, "-m", "tests.support.creating", str(root), str(weights), str(number)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            assert child.stdout.read(1) == b".", child.stderr.read().decode()  # it is at work
            time.sleep(chance.uniform(0, 0.08))  # the moment is what this test is about
            child.send_signal(signal.SIGKILL)
            assert child.wait(timeout=60) == -signal.SIGKILL
        library = Library(root)
        assert verify(library, on_status=quiet) == []
        for model in library.models():
            assert model.to_local().path.read_bytes()[:4] == b"GGUF"
