"""Who is loaded next, and who has to go for it. Pure: from a picture of all models to what is to be done.

Waiting models are looked at in the order of their oldest request. For each one, in this order:

1. It fits into what is free, besides what is promised to those before it: it starts. Loads that fit never wait.
2. It fits once the workers that are stopping have stopped: it waits, and that memory is promised to it.
3. It fits if idle workers give back the memory of their KV caches: they do.
4. It fits if idle workers are evicted, the least recently asked first: they are, until it is enough that those that
   stay give back their KV caches.
5. Only busy workers are in the way. At first it waits for one of them to fall idle, and those behind it may go first if
   they fit. After a bounded time (`is_starved`) the busy worker that was asked longest ago is closed: it takes no new
   leases, so it falls idle when those it has have ended.

Nobody waits for ever. Whoever holds a lease waits for nothing of ours, so what waits is a line, never a ring: leases
end by themselves, a closed worker gets no new ones, and what it gives back is promised to the first in the line, which
nobody behind it can take. The closed model's own new requests stand at the end of the line, and get their turn the same
way.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from corral.server.memory_budget import Budget

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Resident(Generic[Key]):
    """A model that has memory now.

    Args:
        num_bytes: what it takes, or will take when its load is done.
        releasable_bytes: of these, what its KV cache would give back at once; 0 unless it is idle.
        returning_bytes: of these, what it is giving back already.
        last_used: when it was last asked.
        is_idle: nobody holds it or waits for its load.
        is_closed: takes no new leases already.
    """

    key: Key
    num_bytes: int
    releasable_bytes: int = 0
    returning_bytes: int = 0
    last_used: float = 0.0
    is_idle: bool = False
    is_pinned: bool = False
    is_stopping: bool = False
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Waiting(Generic[Key]):
    """A model that shall be loaded.

    Args:
        wanted_bytes: what it takes with a useful context; `least_bytes` with the shortest one.
        is_starved: it has waited long enough behind busy models.
    """

    key: Key
    wanted_bytes: int
    least_bytes: int
    is_starved: bool = False


@dataclass(slots=True)
class Decision(Generic[Key]):
    """What is to be done.

    Args:
        starts: loads, each with the bytes that it may take, KV pool included.
        releases: idle workers whose KV cache is to be given back.
        evictions: idle workers to be ended, each with the model it makes room for.
        closed: busy workers that take no new leases until the next decision.
        refused: models that can never fit, each with the bytes it could have had at most.
    """

    starts: dict[Key, int] = field(default_factory=dict)
    releases: list[Key] = field(default_factory=list)
    evictions: dict[Key, Key] = field(default_factory=dict)
    closed: set[Key] = field(default_factory=set)
    refused: dict[Key, int] = field(default_factory=dict)


def decide(
    residents: Sequence[Resident[Key]], waiting: Sequence[Waiting[Key]], budget: Budget, max_loaded: int | None = None
) -> Decision[Key]:
    """See the head of this file; `waiting` is in the order of arrival."""
    return _Decider(residents, budget, max_loaded).run(waiting)


def relieve(residents: Sequence[Resident[Key]], excess_bytes: int) -> Decision[Key]:
    """What idle workers give back when all together really occupy `excess_bytes` too many: KV caches first."""
    decision: Decision[Key] = Decision()
    excess_bytes -= sum(r.num_bytes if r.is_stopping else r.returning_bytes for r in residents)
    idle = sorted((r for r in residents if r.is_idle and not r.is_stopping), key=lambda r: r.last_used)
    for resident in idle:
        if excess_bytes > 0 and resident.releasable_bytes:
            decision.releases.append(resident.key)
            excess_bytes -= resident.releasable_bytes
    for resident in idle:
        if excess_bytes > 0 and not resident.is_pinned:
            decision.evictions[resident.key] = resident.key
            excess_bytes -= resident.num_bytes - resident.releasable_bytes
    return decision


class _Decider(Generic[Key]):
    def __init__(self, residents: Sequence[Resident[Key]], budget: Budget, max_loaded: int | None) -> None:
        self._budget = budget
        pinned = [r for r in residents if r.is_pinned]
        self._pinned_bytes = sum(r.num_bytes for r in pinned)
        self._pinned_places = len(pinned)
        self._max_places = max_loaded if max_loaded is not None else 1 << 30
        self._free = budget.target - sum(r.num_bytes for r in residents)
        self._places = self._max_places - len(residents)
        self._coming = sum(r.num_bytes if r.is_stopping else r.returning_bytes for r in residents)
        self._coming_places = sum(r.is_stopping for r in residents)
        others = [r for r in residents if not r.is_pinned and not r.is_stopping]
        self._idle = sorted((r for r in others if r.is_idle), key=lambda r: r.last_used)
        # Those that are closed already stay first, so that a started wait for them is not given up for another one.
        self._busy = sorted((r for r in others if not r.is_idle), key=lambda r: (not r.is_closed, r.last_used))
        self._releasable = [
            r for r in residents if r.is_idle and not r.is_stopping and r.releasable_bytes > 0
        ]  # pinned ones too
        self._returning = {r.key: r.returning_bytes for r in residents}  # counted as coming, victim or not
        self._decision: Decision[Key] = Decision()

    def run(self, waiting: Sequence[Waiting[Key]]) -> Decision[Key]:
        for position, model in enumerate(waiting):
            self._serve(model, waiting[position + 1 :])
        return self._decision

    def _serve(self, model: Waiting[Key], behind: Sequence[Waiting[Key]]) -> None:
        most = self._budget.ceiling - self._pinned_bytes
        if model.least_bytes > most or self._pinned_places >= self._max_places:
            self._decision.refused[model.key] = most
            return
        need = min(model.wanted_bytes, most)
        # The reserve is touched only for a model that would not fit without it, whoever is evicted.
        slack = self._budget.ceiling - self._budget.target if need > self._budget.target - self._pinned_bytes else 0
        if self._fits(need, slack, 0, 0):
            given = need + self._surplus(need, behind)
            self._decision.starts[model.key] = given
            self._free -= given
            self._places -= 1
        elif (
            self._fits(need, slack, self._coming, self._coming_places)
            or self._release(need, slack)
            or self._evict(model.key, need, slack)
            or (model.is_starved and self._close(need, slack))
        ):
            self._promise(need)

    def _surplus(self, need: int, behind: Sequence[Waiting[Key]]) -> int:
        """What a model gets beyond its need: an equal share with those behind it that start now as well."""
        left = max(0, self._free - need)
        places = self._places - 1
        num_sharing = 1
        for other in behind:
            if other.wanted_bytes <= left and num_sharing <= places:
                left -= other.wanted_bytes
                num_sharing += 1
        return left // num_sharing

    def _fits(self, need: int, slack: int, more_bytes: int, more_places: int) -> bool:
        return need <= self._free + slack + more_bytes and self._places + more_places >= 1

    def _promise(self, need: int) -> None:
        """What is coming goes to this model first, so that what is free stays for others that fit."""
        taken = min(need, self._coming)
        self._coming -= taken
        self._free -= need - taken
        if self._coming_places:
            self._coming_places -= 1
        else:
            self._places -= 1

    def _release(self, need: int, slack: int) -> bool:
        """Lets KV caches go, if that is enough."""
        if self._places + self._coming_places < 1:
            return False
        missing = need - (self._free + slack + self._coming)
        chosen = []
        for resident in sorted(self._releasable, key=lambda r: r.last_used):
            if missing <= 0:
                break
            chosen.append(resident)
            missing -= resident.releasable_bytes
        if missing > 0:
            return False
        for resident in chosen:
            self._releasable.remove(resident)
            self._decision.releases.append(resident.key)
            self._coming += resident.releasable_bytes
            self._returning[resident.key] = resident.releasable_bytes
        return True

    def _evict(self, key: Key, need: int, slack: int) -> bool:
        chosen = self._victims(self._idle, need, slack)
        if chosen is None:
            return False
        for victim in chosen:
            self._take(victim)
            self._decision.evictions[victim.key] = key
            if self._release(need, slack):  # those that stay need not go as well
                break
        return True

    def _close(self, need: int, slack: int) -> bool:
        """Closes busy workers; the idle ones that it will take besides are kept for it, and evicted when it is time."""
        chosen = self._victims([*self._idle, *self._busy], need, slack)
        if chosen is None:
            return False
        for victim in chosen:
            if not victim.is_idle:
                self._decision.closed.add(victim.key)
            self._take(victim)
        return True

    def _victims(self, candidates: Sequence[Resident[Key]], need: int, slack: int) -> list[Resident[Key]] | None:
        """The first candidates that together make room; None if all of them do not."""
        more_bytes, more_places = self._coming, self._coming_places
        chosen: list[Resident[Key]] = []
        for victim in candidates:
            if self._fits(need, slack, more_bytes, more_places):
                break
            chosen.append(victim)
            more_bytes += self._gain(victim)
            more_places += 1
        return chosen if self._fits(need, slack, more_bytes, more_places) else None

    def _take(self, victim: Resident[Key]) -> None:
        self._coming += self._gain(victim)
        self._coming_places += 1
        for candidates in (self._idle, self._busy, self._releasable):
            if victim in candidates:
                candidates.remove(victim)

    def _gain(self, victim: Resident[Key]) -> int:
        return victim.num_bytes - self._returning[victim.key]
