"""The probes of one engine: started with a key where it takes one, then as it comes, and ended and started again."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import psutil

from corral.compare.engines.engine import EngineFailed, Settings
from corral.compare.probes.conformance import probe_conformance
from corral.compare.probes.probe import Progress
from corral.compare.probes.production import probe_production
from corral.compare.probes.security import probe_with_key, probe_without_key
from corral.compare.probes.target import Target, help_text, key_flags
from corral.compare.process import Server, child_environment
from corral.compare.results import Check
from corral.compare.turn import Entry

_TIMEOUT_S = 60.0


class Restartable:
    """An engine that probes may end, and start again at the same address; see probes.target.Process."""

    def __init__(self, entry: Entry, log: Path) -> None:
        self._entry = entry
        self._log = log
        self._server = Server(entry.launch, entry.port, log)

    @property
    def url(self) -> str:
        return self._entry.url

    def tree(self) -> Sequence[int]:
        return self._server.tree()

    def code(self) -> int | None:
        return self._server.code()

    def terminate(self) -> None:
        self._server.terminate()

    def kill(self) -> None:
        self._server.kill()

    def kill_child(self) -> int | None:
        """The one with most memory, as that has the weights; None where the first process has more than it."""
        sizes = {}
        for pid in self._server.tree():
            with contextlib.suppress(psutil.Error):
                sizes[pid] = psutil.Process(pid).memory_info().rss
        child = max(sizes, key=lambda pid: sizes[pid], default=None)
        if child is None or child == self._server.pid:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return child

    async def restart(self) -> None:
        self._server.close()
        self._server = Server(self._entry.launch, self._entry.port, self._log)
        await self.start()

    async def start(self) -> Settings:
        """What it says of itself when it is ready. Raises EngineFailed."""
        self._server.start()
        async with httpx.AsyncClient(base_url=self.url, timeout=_TIMEOUT_S, trust_env=False) as http:
            await self._server.wait_ready(self._entry.engine, http)
            await self._entry.engine.prepare(http, self._entry.setup)
            return await self._entry.engine.settings(http, self._entry.setup)

    def close(self) -> None:
        self._server.close()


async def probe(
    entry: Entry,
    log: Path,
    say: Callable[[str], None],
    progress: Progress = lambda name, done, total: None,
) -> list[Check]:
    """All checks of an engine. What could not be started is told by `say`, and its checks are not there."""
    launch = entry.launch
    target = Target(entry.engine.name, entry.url, entry.setup.name, shape=entry.engine.body, argv=tuple(launch.argv))
    if not launch.argv:  # it is not ours: nothing of it is ended, which those checks say, and nobody knows its key
        async with httpx.AsyncClient(base_url=target.url, timeout=_TIMEOUT_S, trust_env=False) as http:
            target = replace(target, settings=await entry.engine.settings(http, entry.setup))
        return await _plain(target, progress)
    text = await help_text(launch.argv, child_environment(launch.environment))
    target = replace(target, help_text=text)
    key = f"key-{secrets.token_hex(16)}"
    checks: list[Check] = []
    flags = key_flags(text, key) or ()
    spare = (*launch.spare_argv, *flags) if launch.spare_argv else ()
    with_key = replace(launch, argv=(*launch.argv, *flags), spare_argv=spare)
    try:
        async with _running(replace(entry, launch=with_key), log) as (running, settings):
            asked = replace(target, key=key if flags else "", settings=settings, process=running)
            checks += await probe_with_key(asked, progress)
        async with _running(entry, log) as (running, settings):
            asked = replace(target, settings=settings, process=running)
            checks += await _plain(asked, progress)
    except EngineFailed as error:
        say(f"the probes of {entry.engine.name} end here: {error}")
    return [without_home(check) for check in checks]


def without_home(check: Check) -> Check:
    """A report is passed on, and servers tell where their files are."""
    return replace(check, found=check.found.replace(f"{Path.home()}/", "~/"))


async def _plain(target: Target, progress: Progress) -> list[Check]:
    """Those of a server as it comes; what may end it comes last."""
    security = await probe_without_key(target, progress)
    conformance = await probe_conformance(target, progress)
    return [*security, *conformance, *await probe_production(target, progress)]


@contextlib.asynccontextmanager
async def _running(entry: Entry, log: Path) -> AsyncIterator[tuple[Restartable, Settings]]:
    running = Restartable(entry, log)
    try:
        yield running, await running.start()
    finally:
        running.close()
