"""The checks of production: what whoever runs a server for others needs of it."""

from __future__ import annotations

from corral.compare.probes.endings import ending_probes
from corral.compare.probes.operating import operating_probes
from corral.compare.probes.overload import overload_probes
from corral.compare.probes.probe import Progress, run_probes
from corral.compare.probes.target import Target
from corral.compare.results import Check

AREA = "production"


async def probe_production(target: Target, progress: Progress = lambda name, done, total: None) -> list[Check]:
    """Those that end the process come last, and leave it running."""
    return await run_probes(AREA, [*operating_probes(), *overload_probes(), *ending_probes()], target, progress)
