"""Limits that a request has to keep, and the greatest rate at which enough of them do.

The search is MLPerf's server scenario scaled down: Poisson arrivals, the rate halved between one that keeps the limits
and one that does not, and what was found confirmed by more runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping

from corral.compare.results import GreatestRate
from corral.errors import InvalidConfig

NAMES = ("ttft", "tpot", "e2e")
KEPT_SHARE = 0.95  # of all requests, failed ones too
_OTHER_NAMES = {"e2el": "e2e"}  # vLLM's
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s{0,4}([a-z]{0,3})", re.IGNORECASE)

Share = Callable[[float], Awaitable[float]]  # a rate -> the share of requests that kept the limits


def parse_slo(text: str) -> dict[str, float]:
    """Seconds by name, of "ttft=500ms,tpot=50ms,e2e=10s".

    Raises:
        InvalidConfig: an unknown name, one given twice, or what is no span of time with its unit.
    """
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise InvalidConfig(f"{part.strip()!r} is no limit; write ttft=500ms,tpot=50ms,e2e=10s")
        _put(limits, name, _span(name, value))
    return limits


def parse_goodput(pairs: list[str] | tuple[str, ...]) -> dict[str, float]:
    """Seconds by name, of vLLM's "ttft:500 tpot:50 e2el:10000", in milliseconds.

    Raises:
        InvalidConfig: as of parse_slo.
    """
    limits: dict[str, float] = {}
    for pair in (word for text in pairs for word in text.split()):
        name, colon, value = pair.partition(":")
        match = re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", value)
        if not colon or match is None or float(value) <= 0:
            raise InvalidConfig(f"{pair!r} is no limit; write NAME:MILLISECONDS, for instance ttft:500 tpot:50")
        _put(limits, name, float(value) / 1000)
    return limits


def _put(limits: dict[str, float], given: str, value: float) -> None:
    name = _OTHER_NAMES.get(given.lower(), given.lower())
    if name not in NAMES:
        raise InvalidConfig(f"unknown limit {given!r}; there are {', '.join(NAMES)}")
    if name in limits:
        raise InvalidConfig(f"the limit {name} is given twice")
    limits[name] = value


def _span(name: str, value: str) -> float:
    match = _SPAN.fullmatch(value)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise InvalidConfig(f"{name} is {value!r}; it must be a span of time above 0 with its unit: 500ms, 10s, 2m")
    return float(match[1]) * unit


async def greatest_rate(
    engine: str,
    repeat: int,
    share: Share,
    *,
    first: float = 1.0,
    least: float = 0.05,
    most: float = 1000.0,
    precision: float = 0.1,
    kept_share: float = KEPT_SHARE,
    confirmations: int = 2,
) -> GreatestRate:
    """Looks for the rate, and then asks again whether it holds.

    Args:
        first: requests a second to begin with.
        least, most: no slower and no faster rate is tried.
        precision: the rate is known when the next one is less than this share above it.
        confirmations: runs that a rate has to pass once more; one that fails steps down by `precision`.
    """
    found = GreatestRate(engine, repeat, 0.0)

    async def is_kept(rate: float) -> bool:
        kept = await share(rate)
        found.tried.append((rate, kept))
        return kept >= kept_share

    low, high = 0.0, math.inf
    rate = min(max(first, least), most)
    while True:
        if await is_kept(rate):
            low = rate
            if rate >= most:
                break
        else:
            high = rate
            if rate <= least:
                break
        if low and high / low <= 1 + precision:
            break
        if low and high < math.inf:
            rate = math.sqrt(low * high)
        else:
            rate = min(rate * 2, most) if low else max(rate / 2, least)
    while low >= least:
        for _ in range(confirmations):
            if not await is_kept(low):
                break
        else:
            found.rate = low
            break
        low /= 1 + precision
    return found


def limits_text(limits: Mapping[str, float]) -> str:
    """As parse_slo reads them."""
    return ",".join(f"{name}={value * 1000:g}ms" for name, value in limits.items())
