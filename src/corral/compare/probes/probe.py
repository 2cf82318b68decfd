"""A check as something to be tried: bounded in time, harmless to the comparison whatever it meets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from corral.compare.engines.engine import EngineFailed
from corral.compare.probes.target import Target
from corral.compare.probes.wire import line_of
from corral.compare.results import Check

Verdict = Literal["pass", "fail", "partly", "unknown"]
Progress = Callable[[str, int, int], None]  # the check, how many are done, of how many

MOST_FOUND = 900  # characters of evidence
_ALIVE_S = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check came to; `found` is its evidence."""

    verdict: Verdict
    found: str


class CannotTry(Exception):
    """The check makes no sense here; the text says why, and the verdict is "unknown"."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One check.

    Args:
        limit_s: after which it is given up.
        ends_it: it may end the process, and says itself what became of it.
        is_aside: it mostly waits, so it runs beside the others from the start.
    """

    name: str
    wanted: str
    run: Callable[[Target], Awaitable[Finding]]
    limit_s: float = 60.0
    ends_it: bool = False
    is_aside: bool = False


def passed(found: str) -> Finding:
    return Finding("pass", found)


def failed(found: str) -> Finding:
    return Finding("fail", found)


def partly(found: str) -> Finding:
    return Finding("partly", found)


def judged(faults: Sequence[str], found: str, *, is_partly: bool = False) -> Finding:
    """Passes where there are no faults; else they stand in front of what was found."""
    if not faults:
        return passed(found)
    return Finding("partly" if is_partly else "fail", "; ".join([*faults, found] if found else faults))


async def run_probes(
    area: str,
    probes: Sequence[Probe],
    target: Target,
    progress: Progress = lambda name, done, total: None,
) -> list[Check]:
    """One after the other. A server that does not answer after a check is started again where it is ours; where it is
    not, the checks that remain cannot be tried."""
    aside = {probe.name: asyncio.create_task(_try(probe, target)) for probe in probes if probe.is_aside}
    try:
        return await _run(area, probes, target, aside, progress)
    finally:
        for task in aside.values():
            task.cancel()
        await asyncio.gather(*aside.values(), return_exceptions=True)


async def _run(
    area: str,
    probes: Sequence[Probe],
    target: Target,
    aside: Mapping[str, asyncio.Task[Finding]],
    progress: Progress,
) -> list[Check]:
    checks: list[Check] = []
    gone = ""
    for number, probe in enumerate(probes):
        progress(probe.name, number, len(probes))
        finding = Finding("unknown", gone)
        if not gone:
            finding = await (aside.get(probe.name) or _try(probe, target))
        if not gone and not await _is_alive(target):
            if not probe.ends_it:
                finding = failed(f"{finding.found}; after this the server answers nobody")
            gone = await _start_again(target, probe.name)
        found = target.without_secret(line_of(finding.found, MOST_FOUND))
        checks.append(Check(area, probe.name, finding.verdict, found, probe.wanted))
    progress("", len(probes), len(probes))
    return checks


async def _try(probe: Probe, target: Target) -> Finding:
    limit = asyncio.timeout(probe.limit_s)
    try:
        async with limit:
            return await probe.run(target)
    except CannotTry as reason:
        return Finding("unknown", f"not tried: {reason}")
    except TimeoutError:
        return Finding("unknown", f"given up after {probe.limit_s:g} s")
    except EngineFailed as error:
        return Finding("unknown", f"it could not be started again: {error}")
    except Exception as error:  # noqa: BLE001 - a reply may be anything, and no check ends the comparison
        return Finding("unknown", f"the check itself failed: {type(error).__name__}: {error}")


async def _is_alive(target: Target) -> bool:
    """It answers whatever it likes, within a bounded time."""
    if target.process is not None and target.process.code() is not None:
        return False
    return (await target.ask("GET", "/v1/models", timeout_s=_ALIVE_S)).status > 0


async def _start_again(target: Target, after: str) -> str:
    """Why it does not run; "" if it does."""
    if target.process is None:
        return f"not tried: the server answers nobody since the check {after!r}"
    try:
        await target.process.restart()
    except EngineFailed as error:
        return f"not tried: the server could not be started again after the check {after!r}: {error}"
    return ""
