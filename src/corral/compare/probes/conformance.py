"""The checks of conformance: whether clients of the usual protocols get what they rely on."""

from __future__ import annotations

from corral.compare.probes.answered import answer_probes
from corral.compare.probes.comply import comply_probes
from corral.compare.probes.probe import Progress, run_probes
from corral.compare.probes.protocols import protocol_probes
from corral.compare.probes.streamed import stream_probes
from corral.compare.probes.target import Target
from corral.compare.results import Check

AREA = "conformance"


async def probe_conformance(target: Target, progress: Progress = lambda name, done, total: None) -> list[Check]:
    """All of them; what an engine has no route for cannot be tried."""
    probes = [*stream_probes(), *answer_probes(), *protocol_probes(), *comply_probes()]
    return await run_probes(AREA, probes, target, progress)
