"""The sequences that wait, each in its tenant's own line; the tenants take turns by what they have had."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from corral.engine.ledger import Account, Ledger
from corral.engine.linked_list import LinkedList

if TYPE_CHECKING:
    from corral.engine.sequence import Sequence

PROMPT_COST = 1.0  # of a prompt's token that is computed; cached ones cost nothing
OUTPUT_COST = 2.0  # of a generated token: a step for itself, where a prompt's tokens share one


class Tenant(Account):
    """Whose requests the engine has: its line, and how many of its sequences run."""

    __slots__ = ("num_running", "waiting")

    def __init__(self, name: str, counter: float) -> None:
        super().__init__(name, counter)
        self.waiting: LinkedList[Sequence] = LinkedList()
        self.num_running = 0


def turn_of(tenant: Tenant) -> tuple[float, float]:
    """Whose turn is least is next. Among equals it is who has less running, then who came first."""
    return tenant.counter, tenant.num_running / tenant.weight


def youngest_of_richest(running: list[Sequence]) -> Sequence:
    """Of sequences in order of age: the youngest of the tenant whose turn is last."""
    richest = max((sequence.group.account for sequence in running), key=turn_of)
    return next(sequence for sequence in reversed(running) if sequence.group.account is richest)


class FairQueue:
    """Within a tenant's line: first come, first served, lower priorities before higher ones.

    With one tenant it is a plain queue. Its head costs a look at each tenant that waits, whatever the requests.
    """

    def __init__(self, tenants: Ledger[Tenant]) -> None:
        self._tenants = tenants
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        for tenant in self._tenants.open.values():
            yield from tenant.waiting

    @property
    def head(self) -> Sequence | None:
        """The next to start; None when nobody waits."""
        if not self._size:
            return None
        return min((t for t in self._tenants.open.values() if t.waiting), key=turn_of).waiting.head

    def push(self, sequence: Sequence) -> None:
        """At the end of its tenant's line, before those with a higher priority."""
        line = sequence.group.account.waiting
        priority = sequence.group.priority
        tail = line.tail
        if tail is None or tail.group.priority <= priority:
            line.push_tail(sequence)
        else:
            line.insert_before(next(other for other in line if other.group.priority > priority), sequence)
        self._size += 1

    def push_head(self, sequence: Sequence) -> None:
        """In front of its tenant's line."""
        sequence.group.account.waiting.push_head(sequence)
        self._size += 1

    def insert_before(self, place: Sequence, sequence: Sequence) -> None:
        """In front of `place`, which waits in the same line."""
        sequence.group.account.waiting.insert_before(place, sequence)
        self._size += 1

    def remove(self, sequence: Sequence) -> None:
        """Out of its line. Raises ValueError if it is in none."""
        sequence.group.account.waiting.remove(sequence)
        self._size -= 1


def projected_turns(lines: Iterable[tuple[float, float, int]], cost: float) -> Iterator[int]:
    """In which order the lines are served if every request costs the same: indices of `lines`, one a request.

    Args:
        lines: (counter, weight, requests) each.
        cost: of one request, above 0.
    """
    heap = [(counter, at, cost / weight, count) for at, (counter, weight, count) in enumerate(lines) if count]
    heapq.heapify(heap)
    while heap:
        counter, at, step, count = heap[0]
        yield at
        if count == 1:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (counter + step, at, step, count - 1))
