"""No check hangs, breaks the comparison or disturbs a later one."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from corral.compare.engines.engine import EngineFailed
from corral.compare.exchange import parse_origin
from corral.compare.probes.probe import CannotTry, Finding, Probe, passed, run_probes
from corral.compare.probes.target import Target, help_text
from corral.compare.probes.wire import head_of, line_of, request_of, send, talk
from corral.compare.probing import without_home
from corral.compare.process import child_environment, free_port
from corral.compare.results import Check
from tests.support.probed_answers import MODEL
from tests.support.probed_server import ProbedServer
from tests.support.probing import QUICK, checks_of


async def fine(target: Target) -> Finding:
    return passed("fine")


async def never(target: Target) -> Finding:
    await asyncio.Event().wait()
    raise AssertionError


async def broken(target: Target) -> Finding:
    raise KeyError("what came")


async def senseless(target: Target) -> Finding:
    raise CannotTry("there is none")


async def killer(target: Target) -> Finding:
    assert target.process is not None
    target.process.kill()
    return passed("it is dead")


async def test_what_cannot_be_tried_is_unknown_and_the_rest_goes_on() -> None:
    probes = [
        Probe("never", "w", never, limit_s=0.05),
        Probe("broken", "w", broken),
        Probe("senseless", "w", senseless),
        Probe("fine", "w", fine),
    ]
    seen: list[tuple[str, int, int]] = []
    server = ProbedServer()
    await server.start()
    try:
        target = Target("e", server.url, MODEL, patience=QUICK)
        found = await run_probes("a", probes, target, lambda *step: seen.append(step))
    finally:
        await server.stop()
    assert [(check.name, check.verdict, check.found) for check in found] == [
        ("never", "unknown", "given up after 0.05 s"),
        ("broken", "unknown", "the check itself failed: KeyError: 'what came'"),
        ("senseless", "unknown", "not tried: there is none"),
        ("fine", "pass", "fine"),
    ]
    assert seen == [("never", 0, 4), ("broken", 1, 4), ("senseless", 2, 4), ("fine", 3, 4), ("", 4, 4)]


async def test_a_check_that_ends_the_server_fails_and_it_is_started_again() -> None:
    dead, alive = await checks_of([Probe("killer", "w", killer), Probe("fine", "w", fine)], ProbedServer())
    assert (dead.verdict, dead.found) == ("fail", "it is dead; after this the server answers nobody")
    assert (alive.verdict, alive.found) == ("pass", "fine")


async def test_a_check_that_means_to_end_it_says_itself_what_became_of_it() -> None:
    dead, alive = await checks_of(
        [Probe("killer", "w", killer, ends_it=True), Probe("fine", "w", fine)], ProbedServer()
    )
    assert (dead.verdict, alive.verdict) == ("pass", "pass")


async def test_a_server_that_does_not_start_again_leaves_the_rest_untried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> None:
        raise EngineFailed("no memory")

    server = ProbedServer()
    monkeypatch.setattr(server, "restart", fails)
    _, rest = await checks_of([Probe("killer", "w", killer, ends_it=True), Probe("fine", "w", fine)], server)
    assert rest.verdict == "unknown"
    assert rest.found == "not tried: the server could not be started again after the check 'killer': no memory"


async def test_what_is_not_ours_and_gone_leaves_the_rest_untried() -> None:
    server = ProbedServer()

    async def kill(target: Target) -> Finding:
        server.kill()
        return passed("it is dead")

    _, rest = await checks_of([Probe("kill", "w", kill), Probe("fine", "w", fine)], server, process=None)
    assert (rest.verdict, rest.found) == ("unknown", "not tried: the server answers nobody since the check 'kill'")


async def test_a_check_that_mostly_waits_runs_beside_the_others() -> None:
    begun = asyncio.Event()

    async def waits(target: Target) -> Finding:
        begun.set()
        return passed("waited")

    async def first(target: Target) -> Finding:
        await begun.wait()
        return passed("saw it")

    probes = [Probe("first", "w", first, limit_s=5), Probe("aside", "w", waits, is_aside=True)]
    assert [check.found for check in await checks_of(probes, ProbedServer())] == ["saw it", "waited"]


async def test_a_key_stands_in_no_evidence() -> None:
    async def tells(target: Target) -> Finding:
        return passed(f"it said {target.key}")

    (found,) = await checks_of([Probe("tells", "w", tells)], ProbedServer(key="sk-Secret"))
    assert found.found == "it said <key>"


def test_evidence_is_a_line_without_odd_characters() -> None:
    assert line_of(b"a\x00b\r\n\xff  c") == "a b \ufffd c"
    assert line_of("word " * 100, 12) == "word word w\u2026"


@pytest.mark.parametrize(
    ("reply", "status", "fault"),
    [
        (b"HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\nok", 200, ""),
        (b"HTTP/1.1 200 x\r\n\r\nuntil the end", 200, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", 404, ""),
        (b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nok", 200, "closed in the middle"),
        (b"", 0, "closed without a word"),
        (b"SSH-2.0-x\r\n", 0, "no HTTP"),
    ],
)
async def test_replies_are_read_as_they_come(reply: bytes, status: int, fault: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        origin = parse_origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        found = await send(origin, request_of(origin, "GET", "/", {}), timeout_s=5)
    assert found.status == status
    assert found.fault.startswith(fault) if fault else not found.fault


async def test_a_silent_server_is_waited_for_no_longer_than_said() -> None:
    left = asyncio.Semaphore(0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        left.release()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        origin = parse_origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        found = await send(origin, request_of(origin, "GET", "/", {}), timeout_s=0.05)
        async with talk(origin) as conversation:
            await conversation.write(head_of(origin, "GET", "/", {}))
            assert not conversation.is_over
        await left.acquire()
        await left.acquire()
    assert (found.status, found.fault) == (0, "nothing more in 0.05 s")


async def test_nobody_there_is_a_reply_too() -> None:
    origin = parse_origin(f"http://127.0.0.1:{free_port()}")
    found = await send(origin, request_of(origin, "GET", "/", {}), timeout_s=5)
    assert (found.status, found.fault.startswith("no connection: ")) == (0, True)


async def test_a_programs_help_is_asked_for() -> None:
    assert await help_text((), {}) == ""
    assert await help_text(("/nonexistent/program",), {}) == ""
    assert "Usage" in await help_text(("/bin/cat",), child_environment({}))


def test_what_is_found_names_no_home_folder() -> None:
    check = Check("security", "names", "fail", f'{{"root":"{Path.home()}/models/m.gguf"}}', "none")
    assert without_home(check).found == '{"root":"~/models/m.gguf"}'
