"""Whether the scheduler's books agree, for tests and for the engine's own alarms."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from corral.config import BLOCK_SIZE
from corral.engine.block_pool import IntegrityError
from corral.engine.sequence import SequenceStatus

if TYPE_CHECKING:
    from corral.engine.scheduler import Scheduler

_AGE = attrgetter("seq_id")


def check_queues(scheduler: Scheduler) -> None:
    """Every live sequence is in exactly the place its status says. O(everything). Raises IntegrityError."""
    alive = [s for g in scheduler.groups.values() for s in g.sequences if s.status is not SequenceStatus.FINISHED]
    running = [s for s in alive if s.status is SequenceStatus.RUNNING]
    queued = [s for s in alive if s.is_linked]
    if sorted(running, key=_AGE) != scheduler.running:
        raise IntegrityError(f"{len(running)} sequences say they run; the list has {len(scheduler.running)}, by age")
    if any(s.status is not SequenceStatus.WAITING for s in queued) or len(queued) != len(scheduler.waiting):
        raise IntegrityError(f"{len(queued)} sequences are queued; the queue has {len(scheduler.waiting)}")
    for tenant in scheduler.tenants.open.values():
        of_tenant = [s.status is SequenceStatus.RUNNING for s in alive if s.group.account is tenant]
        if not of_tenant or sum(of_tenant) != tenant.num_running:
            raise IntegrityError(f"tenant {tenant.name} has {sum(of_tenant)} running, not {tenant.num_running}")
    if any(scheduler.tenants.open.get(s.group.tenant) is not s.group.account for s in alive):
        raise IntegrityError("a sequence's tenant is not among those that have work")
    if len(alive) - len(running) - len(queued) != scheduler.num_held:
        raise IntegrityError(f"{len(alive) - len(running) - len(queued)} siblings are held, not {scheduler.num_held}")
    if any(s.block_table or s.num_computed_tokens for s in alive if s.status is SequenceStatus.WAITING):
        raise IntegrityError("a waiting sequence holds blocks")
    for sequence in running:
        if len(sequence.block_table) * BLOCK_SIZE < sequence.num_computed_tokens:
            raise IntegrityError(f"sequence {sequence.seq_id} has more computed tokens than block slots")
