"""All checks of one engine: started as the comparison starts it, then once more with a key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import httpx

from corral.compare.engines.attached import Attached
from corral.compare.engines.engine import Engine, EngineFailed, EngineMissing, Settings, Setup
from corral.compare.probes.conformance import probe_conformance
from corral.compare.probes.probe import Progress
from corral.compare.probes.production import probe_production
from corral.compare.probes.security import probe_with_key, probe_without_key
from corral.compare.probes.served import ServedProcess
from corral.compare.probes.target import Target, help_text, key_flags
from corral.compare.process import child_environment, free_port
from corral.compare.results import Check

_TIMEOUT_S = 60.0
_KEY = "sk-probe-"

Say = Callable[[str], None]
Probing = Callable[[Target, Progress], Awaitable[list[Check]]]
_PLAIN: tuple[Probing, ...] = (probe_without_key, probe_conformance, probe_production)


async def probe_engine(
    engine: Engine,
    setup: Setup,
    folder: Path,
    progress: Progress = lambda name, done, total: None,
    say: Say = lambda line: None,
) -> list[Check]:
    """What runs already is asked too, but for what would end it.

    Args:
        folder: for what the engine prepares, and its logs.
        say: told of what could not be done; nothing is raised for it.

    Raises:
        EngineMissing: it is not on this machine, or cannot serve this file.
    """
    found = await asyncio.to_thread(engine.find)
    checks: list[Check] = []
    if isinstance(engine, Attached):
        target = Target(engine.name, engine.url, setup.name, shape=engine.body)
        target = replace(target, settings=await _settings(engine, target.url, setup))
        return [check for probing in _PLAIN for check in await probing(target, progress)]

    async def serve(stack: AsyncExitStack, flags: tuple[str, ...], key: str) -> Target:
        port = free_port()
        asked = replace(setup, flags=(*setup.flags, *flags))
        launch = await asyncio.to_thread(engine.launch, found, asked, port, folder)
        log = folder / f"probes-{port}.log"
        process = await stack.enter_async_context(ServedProcess(engine, asked, launch, port, log, key))
        return Target(
            engine.name,
            process.url,
            setup.name,
            key=key,
            shape=engine.body,
            argv=process.argv,
            help_text=await help_text(launch.argv, child_environment({})),
            process=process,
        )

    said = ""
    try:
        async with AsyncExitStack() as stack:
            target = await serve(stack, (), "")
            target = replace(target, settings=await _settings(engine, target.url, setup))
            said = target.help_text
            for probing in _PLAIN:
                checks += await probing(target, progress)
            if key_flags(said, _KEY) is None:
                without = replace(target, no_key=f"the help of {engine.name} has no --api-key")
                return checks + await probe_with_key(without, progress)
    except EngineFailed as error:
        say(f"{engine.name} could not be probed: {error}")
        return checks
    key = _KEY + secrets.token_urlsafe(24)
    try:
        async with AsyncExitStack() as stack:
            target = await serve(stack, key_flags(said, key) or (), key)
            checks += await probe_with_key(target, progress)
    except (EngineFailed, EngineMissing) as error:
        say(f"{engine.name} could not be probed with a key: {str(error).replace(key, '<key>')}")
    return checks


async def _settings(engine: Engine, url: str, setup: Setup) -> Settings | None:
    try:
        async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
            return await engine.settings(client, setup)
    except httpx.HTTPError:
        return None
