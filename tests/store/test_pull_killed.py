"""kill -9 at random moments of a pull: the store is whole each time, and the last pull goes on from what has come."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from corral.store.library import Library
from corral.store.manifest import MODEL, SYSTEM, TEMPLATE
from corral.store.names import parse_name
from corral.store.transport.ranges import arrived_bytes, state_path
from corral.store.verify import verify
from tests.store.conftest import tiny_gguf
from tests.support.fake_registry import FakeRegistry

# Imports once, then pulls in a process of its own for every line: most of the time is spent in pulls.
NURSERY = """
import os, sys, traceback
from corral.store.transport.download import Streams
from corral.store.transport.client import Patience, open_client
from corral.store.pull import pull
from corral.store import artifact, model_config, pulling, sources
from corral.store.sources import file, huggingface, ollama, url, wheel
from corral.model import gguf
open_client(Patience()).close()
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            pull(line.strip(), lambda _status: None, streams=Streams(3, 64_000))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def pull(self, name: str, kill: Callable[[], None] | None = None) -> int:
        """The exit code of a pull: 0, or -9 if it was killed, which it is when `kill` returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        if kill is not None:
            kill()
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(child, signal.SIGKILL)
        return int(self._process.stdout.readline())


@contextmanager
def nursery() -> Iterator[Nursery]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", NURSERY]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_pull_leaves_the_store_whole(registry: FakeRegistry, rounds: int) -> None:
    chance = random.Random(rounds)
    for tag in ("a", "b"):
        layers = [(MODEL, tiny_gguf(ord(tag))), (SYSTEM, f"I am {tag}.".encode()), (TEMPLATE, b"{{ .Prompt }}")]
        registry.add(f"ns/model:{tag}", layers)[MODEL].piece_s = 0.002
    library = Library.open()
    codes = []
    with nursery() as children:
        for number in range(rounds):
            name = parse_name(registry.name(f"ns/model:{'ab'[number % 2]}"))
            if library.find(name) is not None:
                library.delete(name)
            moment_s = chance.random() * 0.25
            codes.append(children.pull(name.given, functools.partial(time.sleep, moment_s)))
            assert verify(library, on_status=lambda _s: None) == []
            if (stored := library.find(name)) is not None:
                assert stored.to_local().path.stat().st_size == len(tiny_gguf())
        assert codes.count(-signal.SIGKILL) > rounds // 3
        assert set(codes) <= {0, -signal.SIGKILL}
        for tag in "ab":
            last = registry.name(f"ns/model:{tag}")
            assert children.pull(last) == 0
            found = library.find(parse_name(last))
            assert found is not None
            assert found.to_local().path.read_bytes() == tiny_gguf(ord(tag))
    assert verify(library, on_status=lambda _s: None) == []


def test_the_pull_after_a_kill_fetches_only_what_is_missing(registry: FakeRegistry) -> None:
    route = registry.add("ns/model:a", [(MODEL, tiny_gguf())])[MODEL]
    route.stall_after.extend([64_000, 64_000, 64_000, 32_000, 32_000, 32_000])
    name = registry.name("ns/model:a")
    layer = f"sha256:{hashlib.sha256(tiny_gguf()).hexdigest()}"
    library = Library.open()
    with nursery() as children:

        def something_has_come() -> None:
            scratch = library.blob_target(layer).with_name(f"{library.blob_target(layer).name}.partial")
            while not (state_path(scratch).exists() and arrived_bytes(scratch)):
                pass  # the test's time limit ends this, should it hang

        assert children.pull(name, something_has_come) == -signal.SIGKILL
        assert library.find(parse_name(name)) is None
        route.stall_after.clear()
        begin = len(registry.cdn.seen)
        assert children.pull(name) == 0
    fetched = 0
    for seen in registry.cdn.seen[begin:]:
        if "range" in seen.headers:
            first, last = seen.headers["range"].removeprefix("bytes=").split("-")
            fetched += int(last) - int(first) + 1
    assert 0 < fetched < len(tiny_gguf())
