"""One check against a scripted server with the faults that it is to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from corral.compare.engines.engine import Settings
from corral.compare.probes.probe import Probe, run_probes
from corral.compare.probes.target import Patience, Target
from corral.compare.results import Check
from tests.support.probed_answers import MODEL
from tests.support.probed_server import ProbedServer

QUICK = Patience(reply_s=3.0, answer_s=8.0, slow_s=0.7, poll_s=0.01, drain_s=0.5, back_s=0.5)
PATIENT = replace(QUICK, drain_s=30.0, back_s=30.0)  # for what comes, on a busy machine too
HELP = "  --host HOST  where to listen (default: 127.0.0.1)\n  --ssl-certfile FILE\n  --api-key KEY\n"
KEY = "sk-Secret123"


async def checks_of(probes: Sequence[Probe], server: ProbedServer, **fields: Any) -> list[Check]:
    """All of these, on a server that is started and stopped here."""
    await server.start()
    target = Target(
        "scripted",
        server.url,
        MODEL,
        key=server.key,
        settings=Settings(context=2048, slots=server.num_slots),
        help_text=HELP,
        patience=QUICK,
        process=server,
    )
    try:
        return await run_probes("area", probes, replace(target, **fields))
    finally:
        await server.stop()


async def check(probes: Sequence[Probe], name: str, server: ProbedServer, **fields: Any) -> Check:
    (found,) = await checks_of([probe for probe in probes if probe.name == name], server, **fields)
    return found
