"""Limits as users write them, and the search for the greatest rate."""

from __future__ import annotations

import pytest

from corral.compare.slo import greatest_rate, limits_text, parse_goodput, parse_slo
from corral.compare.statistics import percentile, variation
from corral.errors import InvalidConfig


def test_limits() -> None:
    limits = parse_slo("ttft=500ms, tpot=0.05s,e2e=2m")
    assert limits == pytest.approx({"ttft": 0.5, "tpot": 0.05, "e2e": 120.0})
    assert parse_slo(limits_text(limits)) == pytest.approx(limits)
    assert parse_goodput(("ttft:500 tpot:50", "e2el:10000")) == {"ttft": 0.5, "tpot": 0.05, "e2e": 10.0}


@pytest.mark.parametrize(
    "text", ["", "ttft", "ttft=", "ttft=5", "ttft=0s", "x=1s", "ttft=1s,ttft=2s", "ttft=1h", "ttft=-1s"]
)
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_slo(text)


@pytest.mark.parametrize("text", ["ttft", "ttft:x", "ttft:0", "x:5", "ttft:1 ttft:2", "ttft:nan"])
def test_what_is_no_limit_in_the_words_of_vllm(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_goodput((text,))


class Engine:
    """Keeps the limits up to a rate; `moods` are capacities of later runs, which differ."""

    def __init__(self, capacity: float, moods: tuple[float, ...] = ()) -> None:
        self._capacity, self._moods, self.asked = capacity, list(moods), 0

    async def share(self, rate: float) -> float:
        self.asked += 1
        capacity = self._moods.pop(0) if self._moods else self._capacity
        return 1.0 if rate <= capacity else 0.5


@pytest.mark.parametrize("capacity", [0.3, 0.97, 1.0, 7.3, 61.0])
async def test_the_greatest_rate_is_found_within_its_precision(capacity: float) -> None:
    engine = Engine(capacity)
    found = await greatest_rate("e", 0, engine.share, precision=0.1, confirmations=2)
    assert capacity / 1.1 <= found.rate <= capacity
    assert [rate for rate, _ in found.tried[-2:]] == [found.rate] * 2  # confirmed
    assert len(found.tried) == engine.asked <= 16


async def test_an_engine_that_keeps_the_limits_at_no_rate_has_none() -> None:
    found = await greatest_rate("e", 0, Engine(0.01).share, least=0.05)
    assert found.rate == 0
    assert min(rate for rate, _ in found.tried) == 0.05


async def test_no_rate_beyond_the_most_is_tried() -> None:
    found = await greatest_rate("e", 0, Engine(1e9).share, most=50.0)
    assert found.rate == 50.0
    assert max(rate for rate, _ in found.tried) == 50.0


async def test_a_rate_that_is_not_confirmed_steps_down() -> None:
    # 1 and 2 are kept, 4 is not, then 2.83 is not, 2.38 and 2.18 are not: 2 is found, and fails when asked again.
    engine = Engine(1.9, moods=(9, 9, 2, 2, 2, 2))
    found = await greatest_rate("e", 0, engine.share)
    assert found.rate == pytest.approx(2 / 1.1)


def test_percentiles_lie_between_values_and_variation_is_relative() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.5
    assert percentile([0.0, 10.0], 99) == pytest.approx(9.9)
    assert variation([9.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert variation([1.0]) is variation([]) is None
