"""The greatest rate within limits, on a real server: one short open loop after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

from corral.compare import profiles
from corral.compare.load import Ask, Load
from corral.compare.profiles import Make
from corral.compare.report import criteria
from corral.compare.results import GreatestRate
from corral.compare.slo import greatest_rate

WINDOW_S = 30.0  # of arrivals at each rate
MIN_REQUESTS = 8  # with fewer, a share of them says nothing
_TRIES = 1000  # of one repeat; so no two tries of any repeats have the same prompts


async def find_greatest_rate(
    engine: str,
    repeat: int,
    ask: Ask,
    make: Make,
    limits: Mapping[str, float],
    *,
    prompt: int = 64,
    answer: int = 32,
    window_s: float = WINDOW_S,
    patience_s: float = 30.0,
    first: float = 1.0,
    precision: float = 0.1,
    confirmations: int = 2,
    progress: Callable[[float], None] = lambda rate: None,
) -> GreatestRate:
    """Requests a second at which the limits are kept by slo.KEPT_SHARE of all requests.

    Args:
        limits: "ttft", "tpot", "e2e" in seconds.
        prompt, answer: tokens of each.
        window_s: how long requests arrive at each rate.
        patience_s: how long a rate's last ones may take; what is not answered by then has not kept the limits.
        progress: told each rate before it is tried.
    """
    tries = itertools.count(repeat * _TRIES)

    async def share(rate: float) -> float:
        progress(rate)
        count = max(MIN_REQUESTS, math.ceil(rate * window_s))
        work = profiles.open_loop(make, rate=rate, num_calls=count, prompt=prompt, answer=answer, name="greatest-rate")
        last_s = max(window_s, count / rate) * 2  # arrivals scatter
        load = Load(work, next(tries), ask, seed=make.seed, limit_s=last_s + patience_s)
        await load.run()
        return criteria.within_limits(load.result(engine, make.count_tokens), limits) or 0.0

    return await greatest_rate(engine, repeat, share, first=first, precision=precision, confirmations=confirmations)
