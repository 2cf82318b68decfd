"""Engines as processes, by fake ones over real sockets: what is started is awaited, and all of it is ended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from corral.compare import log, process
from corral.compare.engines.engine import HOST, EngineFailed, Launch
from corral.compare.engines.llama_cpp import LlamaCpp
from corral.compare.process import Server, free_port

FAKE = Path(__file__).parents[1] / "support" / "fake_engine.py"
ENGINE = LlamaCpp("fake")  # asks for /health, as the fake one has it


def fake(mode: str, tmp_path: Path, *more: str, port: int | None = None, **fields: object) -> Server:
    port = port or free_port()
    argv = (sys.executable, str(FAKE), mode, str(port), *more)
    return Server(Launch(argv=argv, **{"ready_s": 30.0, **fields}), port, tmp_path / "log")  # type: ignore[arg-type]


async def ready(server: Server) -> float:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        return await server.wait_ready(ENGINE, client)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def children(tmp_path: Path) -> list[int]:
    """The two that the fake engine of mode "tree" has started, as it printed; a thread brings that into the log."""
    deadline = time.monotonic() + 30
    while len(found := re.findall(r"child (\d+)\n", (tmp_path / "log").read_text())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(pid) for pid in found]


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process that is none of the engine's."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        yield other.pid
        other.kill()


async def test_it_is_started_awaited_and_stopped(tmp_path: Path) -> None:
    told: list[float] = []
    async with fake("serve", tmp_path) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            took = await server.wait_ready(ENGINE, client, told.append)
        pid = server.pid
        assert pid is not None
        assert is_alive(pid)
        assert server.tree() == [pid]
        assert 0 < took < 30
        assert told == sorted(told)
        stop_s = await server.stop()
        assert stop_s is not None
        assert stop_s > 0
        assert server.code() == -signal.SIGTERM
    assert not psutil.pid_exists(pid)
    assert server.tree() == []


async def test_a_crash_at_the_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    async with fake("crash", tmp_path) as server:
        with pytest.raises(EngineFailed, match=r"fake ended with code 3 before .*loading the model / error: no such"):
            await ready(server)


async def test_a_crash_by_a_signal_is_tried_once_in_another_way(tmp_path: Path) -> None:
    server = fake("signal", tmp_path)
    server.launch = Launch(server.argv, spare_argv=(*server.argv, "--safe"))
    async with server:
        await ready(server)
        assert server.argv[-1] == "--safe"
        assert server.notes == ["it was ended by SIGSEGV at its start, so it was started with --safe"]


async def test_a_crash_by_a_signal_without_another_way(tmp_path: Path) -> None:
    async with fake("signal", tmp_path) as server:
        with pytest.raises(EngineFailed, match="fake was ended by SIGSEGV before it was ready: it said nothing"):
            await ready(server)


async def test_one_that_is_never_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    async with fake("hang", tmp_path, ready_s=0.5) as server:
        with pytest.raises(EngineFailed, match="fake was not ready after 0 s"):
            await ready(server)
        pid = server.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_port_that_is_taken_is_not_taken_for_the_engine(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EngineFailed, match=f"port {port} is taken by another program"):
            async with fake("serve", tmp_path, port=port):
                pass


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="nothing cannot be started: No such file or directory"):
        async with Server(Launch((str(tmp_path / "nothing"),)), free_port(), tmp_path / "log"):
            pass


async def test_a_flood_of_words_stops_neither_the_engine_nor_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_FILE", 1 << 20)
    async with fake("flood", tmp_path) as server:  # 20 MB before it serves
        await ready(server)
        await server.stop()
    size = (tmp_path / "log").stat().st_size
    assert 1 << 20 <= size < (1 << 20) + 2 * log.MAX_END
    assert b"bytes left out; its end:" in (tmp_path / "log").read_bytes()[1 << 20 :]


async def test_all_of_a_tree_is_ended_and_nothing_else(tmp_path: Path, bystander: int) -> None:
    async with fake("tree", tmp_path) as server:
        await ready(server)
        started = children(tmp_path)
        assert len(started) == 2
        assert set(started) < set(server.tree())
        assert os.getsid(started[1]) != server.pid  # a session of its own does not save it
        assert bystander not in server.tree()
    assert not any(map(is_alive, started))
    assert is_alive(bystander)


async def test_orphans_of_a_crash_are_ended_too(tmp_path: Path) -> None:
    async with fake("tree", tmp_path) as server:
        await ready(server)
        started = children(tmp_path)
        assert set(started) < set(server.tree())
        server.kill()
        assert await server.wait_end() == -signal.SIGKILL
        assert all(map(is_alive, started))
    assert not any(map(is_alive, started))


async def test_an_interrupt_ends_the_tree(tmp_path: Path) -> None:
    server = fake("tree", tmp_path)
    is_up = asyncio.Event()

    async def use() -> None:
        async with server:
            await ready(server)
            is_up.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await is_up.wait()
    task.cancel()  # as asyncio.run does it at Ctrl-C
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(map(is_alive, children(tmp_path)))


def test_no_engine_outlives_a_comparison_that_is_told_to_end(tmp_path: Path) -> None:
    port = free_port()
    log_path = tmp_path / "log"
    code = f"""
import asyncio, pathlib, sys
from corral.compare.engines.engine import Launch
from corral.compare.process import Server, unwind_on_sigterm
async def main():
    launch = Launch((sys.executable, {str(FAKE)!r}, "tree", "{port}"))
    log = pathlib.Path({str(log_path)!r})
    async with Server(launch, {port}, log) as server:
        while len(server.tree()) < 3 or log.read_text().count("child") < 2:
            await asyncio.sleep(0.02)
        print("up", flush=True)
        await asyncio.Event().wait()
unwind_on_sigterm()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        client.terminate()
        assert b"KeyboardInterrupt" in client.communicate(timeout=60)[1]
    started = children(tmp_path)
    assert len(started) == 2
    assert not any(map(is_alive, started))


async def test_one_that_does_not_listen_is_killed_and_has_no_time_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_S", 0.3)
    async with fake("stubborn", tmp_path) as server:
        await ready(server)
        pid = server.pid
        assert pid is not None
        assert await server.stop() is None
        assert server.code() == -signal.SIGKILL
    assert not psutil.pid_exists(pid)


async def test_settings_of_the_user_reach_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_NUM_PARALLEL", "LLAMA_ARG_THREADS", "VLLM_CPU_KVCACHE_SPACE", "CORRAL_API_KEY"):
        monkeypatch.setenv(name, "7")
    async with fake("environment", tmp_path, environment={"OLLAMA_HOST": "x"}) as server:
        await ready(server)
        await server.stop()
    names = (tmp_path / "log").read_text().split()
    assert "PATH" in names
    assert [name for name in names if name.startswith(process.ENGINE_SETTINGS)] == ["OLLAMA_HOST"]


async def test_what_runs_already_is_neither_started_nor_ended(tmp_path: Path) -> None:
    async with fake("serve", tmp_path) as ours:
        await ready(ours)
        async with Server(Launch(()), int(ours.url.rpartition(":")[2]), tmp_path / "other") as attached:
            await ready(attached)
            assert attached.tree() == []
            assert await attached.stop() is None
        assert ours.code() is None
