"""Who is let into the engine's queue, and what is told to those who wait there. Pure; the loop's lock guards it."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from corral.config import EngineConfig
from corral.engine.fair_queue import projected_turns
from corral.errors import QueueFull, TenantQueueFull, WaitTooLong
from corral.request import QueuePlace

_MAX_RETRY_S = 60
_RATE_WINDOW = 64  # ends and starts of requests by which the rates are judged


@dataclass(frozen=True, slots=True)
class Lines:
    """What waits after a step: (counter, weight, requests) of each tenant that has some.

    `num_starts` requests have begun since the engine did, and cost `mean_cost` each.
    """

    of: dict[str, tuple[float, float, int]]
    num_starts: int = 0
    mean_cost: float = 1.0


class Intake:
    """Counts unfinished sequences against the bounds, and measures how fast requests start and end.

    Args:
        max_running: sequences that run at once.
        config: `max_queue` and `max_queue_per_key`.
        clock: seconds in which there is work: pauses say nothing of the engine's speed.
    """

    def __init__(self, max_running: int, config: EngineConfig, clock: Callable[[], float]) -> None:
        self.num_unfinished = 0
        self._max_running = max_running
        self._config = config
        self._clock = clock
        self._of_tenant: Counter[str] = Counter()  # unfinished sequences
        self._ends: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._starts: deque[float] = deque(maxlen=_RATE_WINDOW)  # since when there is a queue, and starts from it
        self._lines = Lines({})
        self._num_running = 0  # sequences, after the last step that left nobody waiting
        self._arrived: Counter[str] = Counter()  # requests since the step before this one
        self._settling: Counter[str] = Counter()  # those of them that this step has seen

    # ---- bounds -----------------------------------------------------------------------------------------------

    def check_bounds(self, tenant: str) -> None:
        """One more request.

        Raises:
            TenantQueueFull: the tenant has its share of the queue.
            QueueFull: the queue is full.
        """
        if tenant:
            most = self._max_running + self._config.max_queue_of_key
            if (surplus := self._of_tenant[tenant] - most + 1) > 0:
                retry_after_s = self._retry_after_s(surplus * self._share(tenant))
                raise TenantQueueFull(
                    f"{self._of_tenant[tenant]} sequences of this key run or wait; new requests of it are taken below "
                    f"{most}; try again in {retry_after_s} s",
                    retry_after_s=retry_after_s,
                )
        most = self._max_running + self._config.max_queue
        if (surplus := self.num_unfinished - most + 1) > 0:
            retry_after_s = self._retry_after_s(surplus)
            raise QueueFull(
                f"{self.num_unfinished} sequences run or wait; new requests are taken below {most}; "
                f"try again in {retry_after_s} s",
                retry_after_s=retry_after_s,
            )

    def check_wait(self, place: QueuePlace | None, left_s: float) -> None:
        """Raises WaitTooLong: by the place, it would start when nobody waits for it any more."""
        if place is None or place.expected_wait_s is None or place.expected_wait_s <= left_s:
            return
        retry_after_s = min(_MAX_RETRY_S, max(1, math.ceil(place.expected_wait_s - left_s)))
        raise WaitTooLong(
            f"the request would wait for about {place.expected_wait_s:.1f} s, and has {left_s:.1f} s until its "
            f"deadline; try again in {retry_after_s} s",
            retry_after_s=retry_after_s,
        )

    def take(self, tenant: str, num_sequences: int) -> None:
        """A request is let in."""
        self.num_unfinished += num_sequences
        self._of_tenant[tenant] += num_sequences

    def book_ends(self, tenant: str, count: int) -> None:
        """Sequences have ended."""
        self.num_unfinished -= count
        self._of_tenant[tenant] -= count
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]
        self._ends.extend([self._clock()] * count)

    def _share(self, tenant: str) -> float:
        """How many sequences end for one of the tenant's."""
        return self.num_unfinished / self._of_tenant[tenant]

    def _retry_after_s(self, num_ends: float) -> int:
        """Whole seconds in which so many sequences end, by those of late."""
        if not self._ends:
            return 1
        per_end_s = max(0.0, self._clock() - self._ends[0]) / len(self._ends)
        return min(_MAX_RETRY_S, max(1, math.ceil(num_ends * per_end_s)))

    # ---- places -----------------------------------------------------------------------------------------------

    def place(self, tenant: str, weight: float) -> QueuePlace | None:
        """Where a new request would wait, by the last step; None where it hardly would. `queued` follows."""
        coming = self._settling + self._arrived
        num_free = 0
        if not self._lines.of:
            num_free = self._max_running - self._num_running
            if coming.total() < num_free:
                return None
        counter = min((counter for counter, _, _ in self._lines.of.values()), default=0.0)
        lines = dict.fromkeys(coming, (counter, 1.0, 0)) | self._lines.of
        counter, _, count = lines.pop(tenant, (counter, weight, 0))
        own = count + coming[tenant]
        others = [(c, w, count + coming[name]) for name, (c, w, count) in lines.items()]
        position = left = 0
        for at in projected_turns([(counter, weight, own + 1), *others], self._lines.mean_cost):
            left += at == 0
            if left > own:
                break
            position += 1
        return self.place_at(max(0, position - num_free))

    def queued(self, tenant: str) -> None:
        """A request that goes to the scheduler has arrived."""
        self._arrived[tenant] += 1

    def place_at(self, position: int) -> QueuePlace:
        """With the wait that it means by the starts of late."""
        if len(self._starts) < 2:
            return QueuePlace(position)
        per_start_s = (self._clock() - self._starts[0]) / (len(self._starts) - 1)
        return QueuePlace(position, round((position + 1) * per_start_s, 1))

    def begin_step(self) -> None:
        """All that have arrived are with the scheduler now."""
        self._settling += self._arrived
        self._arrived.clear()

    @property
    def has_lines(self) -> bool:
        """Whether anybody waited after the last step that was told of."""
        return bool(self._lines.of)

    def skip_step(self, num_running: int) -> None:
        """Nobody waits, as before the step."""
        self._settling.clear()
        self._num_running = num_running

    def end_step(self, lines: Lines) -> bool:
        """What the step has left waiting; whether some of that is new."""
        has_new = bool(self._settling)
        num_started = lines.num_starts - self._lines.num_starts
        self._lines = lines
        self._settling.clear()
        if not lines.of:
            self._starts.clear()  # who need not wait starts when it comes, and that says nothing of the speed
        elif self._starts:
            self._starts.extend([self._clock()] * num_started)
        else:
            self._starts.append(self._clock())
        return has_new
