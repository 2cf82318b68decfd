"""The checks of security: what each engine does with a key and without one."""

from __future__ import annotations

from dataclasses import replace

from corral.compare.probes.bounds import bound_probes
from corral.compare.probes.exposure import exposure_probes
from corral.compare.probes.keys import key_probes
from corral.compare.probes.pages import page_probes
from corral.compare.probes.probe import Progress, run_probes
from corral.compare.probes.target import Target
from corral.compare.results import Check

AREA = "security"
WITHOUT = "it has no option for a key"


async def probe_with_key(target: Target, progress: Progress = lambda name, done, total: None) -> list[Check]:
    """Of an engine that was started with `target.key`. One without such an option is asked all the same, as it is: its
    `no_key` says why, and stands in the evidence."""
    if not target.key and not target.no_key:
        target = replace(target, no_key=WITHOUT)
    return await run_probes(AREA, key_probes(), target, progress)


async def probe_without_key(target: Target, progress: Progress = lambda name, done, total: None) -> list[Check]:
    """Of an engine as it is started without more settings than the comparison's."""
    return await run_probes(AREA, [*page_probes(), *exposure_probes(), *bound_probes()], target, progress)
