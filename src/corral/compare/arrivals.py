"""When the requests of an open loop are due."""

from __future__ import annotations

import random

from corral.errors import InvalidConfig


def arrivals(rate: float, count: int, seed: str, *, burstiness: float = 1.0) -> list[float]:
    """Seconds from the start of the load: a Poisson process, whose gaps are exponential, the same for the same seed.

    Args:
        rate: requests a second, in the mean.
        burstiness: the shape of the gaps' gamma distribution: 1 is Poisson, less comes in bursts, more is more even.

    Raises:
        InvalidConfig: a number that is not above 0.
    """
    if not 0 < rate < float("inf"):
        raise InvalidConfig(f"the request rate is {rate:g}; it must be above 0, in requests per second")
    if not 0 < burstiness < float("inf"):
        raise InvalidConfig(f"the burstiness is {burstiness:g}; it must be above 0")
    rng = random.Random(seed)  # noqa: S311 - no secret
    due, times = 0.0, []
    for _ in range(count):
        due += rng.gammavariate(burstiness, 1 / (rate * burstiness))
        times.append(due)
    return times
