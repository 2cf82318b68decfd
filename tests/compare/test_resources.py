"""Sampling of process trees, cold and warm files, and the machine card."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corral.compare import page_cache
from corral.compare.engines.engine import Launch
from corral.compare.machine_card import machine_card
from corral.compare.process import Server, free_port
from corral.compare.resources import Sampler

FAKE = Path(__file__).parents[1] / "support" / "fake_engine.py"
HELD = 40 << 20  # bytes of each child in the fake engine's mode "tree"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    servers: list[Server] = []

    def start(mode: str) -> Server:
        port = free_port()
        server = Server(Launch((sys.executable, str(FAKE), mode, str(port))), port, tmp_path / "log")
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_whole_tree_counts(started: Callable[[str], Server]) -> None:
    server = started("tree")
    wait_for(lambda: len(server.tree()) == 3)
    with Sampler(server.tree, hertz=20) as sampler:
        wait_for(lambda: sampler.sample().resident_bytes > 2 * HELD)
        usage = sampler.sample()
    assert usage.num_processes == 3
    assert usage.num_threads >= 3
    assert usage.proportional_bytes is not None
    assert usage.proportional_bytes <= usage.resident_bytes  # what they share counts once


def test_children_that_come_later_are_found_and_those_that_end_are_left_out(started: Callable[[str], Server]) -> None:
    server = started("tree")
    with Sampler(server.tree, hertz=20) as sampler:
        wait_for(lambda: sampler.sample().num_processes == 3)
        server.close()
        wait_for(lambda: sampler.sample().num_processes == 0)
        assert sampler.sample().resident_bytes == 0


def test_cpu_goes_to_those_who_take_it(started: Callable[[str], Server]) -> None:
    server = started("burn")
    wait_for(lambda: len(server.tree()) == 2)
    with Sampler(server.tree, hertz=20) as sampler:
        mark = sampler.mark()
        wait_for(lambda: sampler.since(mark).engine_cpu > 0.05)
        wait_for(lambda: max(usage.cpu for usage in sampler.usage) > 0.05)
        mark = sampler.mark()
        own = time.process_time() + 0.1
        while time.process_time() < own:
            pass
        share = sampler.since(mark)
    assert share.client_cpu > 0
    assert share.engine_cpu <= (os.cpu_count() or 1) + 0.5
    assert share.foreign_cpu >= 0
    assert share.usage


def test_cpu_of_ended_processes_is_not_taken_back(started: Callable[[str], Server]) -> None:
    server = started("burn")
    with Sampler(server.tree, hertz=20) as sampler:
        mark = sampler.mark()
        wait_for(lambda: sampler.since(mark).engine_cpu > 0.05)
        server.close()
        wait_for(lambda: sampler.sample().num_processes == 0)
        assert sampler.since(mark).engine_cpu > 0
    assert min(usage.cpu for usage in sampler.usage) == 0.0


def test_phases_and_times(started: Callable[[str], Server]) -> None:
    server = started("serve")
    with Sampler(server.tree, server.began) as sampler:
        sampler.sample()
        sampler.phase = "load"
        sampler.sample()
    phases = [usage.phase for usage in sampler.usage]
    assert phases == sorted(phases, key=["start", "load"].index)
    assert {"start", "load"} == set(phases)
    times = [usage.at for usage in sampler.usage]
    assert times == sorted(times)
    assert times[0] > 0
    assert sampler.cost_cpu < 1


def test_an_engine_that_is_not_ours_has_no_samples_of_its_own() -> None:
    with Sampler(list) as sampler:
        usage = sampler.sample()
    assert (usage.cpu, usage.resident_bytes, usage.proportional_bytes, usage.num_processes) == (0.0, 0, None, 0)


def _is_in_memory(folder: Path) -> bool:
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    return kind.stdout.strip() in ("tmpfs", "ramfs")


def test_files_are_put_out_of_the_page_cache_and_back(tmp_path: Path) -> None:
    if _is_in_memory(tmp_path):
        pytest.skip("the folder of temporary files is in memory")
    folder = tmp_path / "model"
    folder.mkdir()
    inner = folder / "weights"
    inner.write_bytes(os.urandom(3 << 20) + b"tail")
    (folder / "empty").touch()
    assert page_cache.cached_share(inner) == 1.0
    assert page_cache.drop([folder])
    assert page_cache.cached_share(inner) == 0.0
    page_cache.warm([folder, tmp_path / "nothing"])
    assert page_cache.cached_share(inner) == 1.0
    assert inner.stat().st_size == (3 << 20) + 4
    assert not page_cache.drop([tmp_path / "nothing"])  # a start that reads nothing known is not called cold


def test_the_card_tells_the_machine_but_not_whose_it_is() -> None:
    card = machine_card(2)
    assert list(card)[:2] == ["CPU", "CPUs usable"]
    assert {"memory", "governor", "system", "load average at start"} <= card.keys()
    assert all(card.values())
    text = " ".join(card.values())
    assert platform.node() not in text
    assert str(Path.home()) not in text or getpass.getuser() == ""
