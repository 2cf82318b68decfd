"""The run of a whole comparison, over simulated servers as real processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from corral.compare import run as run_module
from corral.compare import turn as turn_module
from corral.compare.engines import simulated
from corral.compare.engines.engine import EngineMissing, Found, Launch, Settings, Setup
from corral.compare.profiles import Make, repaired_story, unique
from corral.compare.report.json_file import read_comparison, write_comparison
from corral.compare.results import Comparison
from corral.compare.run import Order, Run, card_of
from corral.compare.workload import Plan, Workload

SETUP = Setup(Path("m.gguf"), "0" * 64, "simulated", 2048, 4, 2)


class Simulated(simulated.Simulated):
    """As a real engine books what it is and does.

    Args:
        flags: of its server.
        missing: why it is not here.
    """

    def __init__(self, name: str, *flags: str, missing: str = "") -> None:
        super().__init__(name, ttft_s=0.01, gap_s=0.001)
        self._flags = flags
        self._missing = missing

    def find(self) -> Found:
        if self._missing:
            raise EngineMissing(self._missing)
        return replace(super().find(), version="1.0", install_bytes=1000)

    def launch(self, found: Found, setup: Setup, port: int, folder: Path) -> Launch:
        launch = super().launch(found, replace(setup, flags=self._flags), port, folder)
        return replace(launch, steps=("install it", "ask it"), notes=())

    async def prepare(self, client: httpx.AsyncClient, setup: Setup) -> Sequence[str]:
        return ("make the model",)

    async def settings(self, client: httpx.AsyncClient, setup: Setup) -> Settings:
        return Settings(context=setup.context)


@pytest.fixture(autouse=True)
def without_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "IDLE_S", 0.0)
    monkeypatch.setattr(run_module, "REST_S", 0.0)


def encode(text: str) -> list[int]:
    return [len(word) for word in text.split()]


def order_of(folder: Path, *engines: Any, repeats: int = 2) -> Order:
    make = Make(lambda text: len(encode(text)))
    workloads = [*repaired_story(make, (1, 3), answer=8), unique(make, clients=2, num_calls=4, prompt=6, answer=4)]
    setups = {engine.name: SETUP for engine in engines}
    return Order(engines, setups, workloads, repeats, make, encode, folder, folder / "logs")


def empty() -> Comparison:
    return Comparison("now", "1", "corral compare", "quick", "m.gguf", "0" * 64, 1, {}, {}, 0, is_simulated=True)


async def compared(order: Order, comparison: Comparison | None = None) -> tuple[Comparison, list[str]]:
    comparison = comparison or empty()
    said: list[str] = []
    run = Run(order, comparison, lambda: None, said.append)
    await run.find()
    await run.turns()
    return comparison, said


async def test_engines_take_turns_and_everything_is_booked(tmp_path: Path) -> None:
    order = order_of(tmp_path, Simulated("a"), Simulated("b"), Simulated("gone", missing="it is not on this machine"))
    comparison, said = await compared(order)
    assert [(start.engine, start.repeat) for start in comparison.starts] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert len(comparison.runs) == 2 * 2 * 3
    assert {run.workload for run in comparison.runs} == {load.name for load in comparison.loads}
    for run in comparison.runs:
        assert all(answer.is_good for answer in run.answers)
        assert len(run.answer_tokens) == len(run.answers)
        assert run.usage
    rows = {row.name: row for row in comparison.engines}
    assert rows["gone"].missing == "it is not on this machine"
    assert rows["a"].steps == ["install it", "make the model", "ask it"]
    assert "simulated_server" in rows["a"].command
    assert [agreement.engine for agreement in comparison.agreements] == ["a", "b"]
    assert comparison.agreements[1].first_difference == [None] * 8
    for start in comparison.starts:
        assert start.ready_s > 0
        assert start.first_token_s > 0
        assert start.stop_s is not None
        assert {usage.phase for usage in start.usage} >= {"load"}
    assert "gone takes no part: it is not on this machine" in said
    assert comparison.faults == []


async def test_the_first_token_counts_from_when_the_engine_was_ready(tmp_path: Path) -> None:
    comparison, _ = await compared(order_of(tmp_path, Simulated("a"), repeats=1))
    [start] = comparison.starts
    # 10 ms after a start that takes Python hundreds; counted from the start it would be more than those.
    assert 0.01 <= start.first_token_s < start.ready_s


async def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    engines = (Simulated("a"), Simulated("b"))
    first, _ = await compared(order_of(tmp_path, *engines, repeats=1))
    assert first.faults == []
    write_comparison(first, tmp_path / "comparison.json")
    read = read_comparison(tmp_path / "comparison.json")
    again, said = await compared(order_of(tmp_path, *engines, repeats=2), read)
    assert [(start.engine, start.repeat) for start in again.starts] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert len(said) == 2
    assert len(again.agreements) == 2


async def test_an_engine_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    comparison, said = await compared(order_of(tmp_path, Simulated("bad", "--no-such-flag"), Simulated("good")))
    assert {start.engine for start in comparison.starts} == {"good"}
    assert "bad ended with code 2 before it was ready" in comparison.engines[0].missing
    assert len(comparison.faults) == 1  # it is not tried again
    assert any("bad failed" in line for line in said)


def test_a_card_tells_how_many_ask_at_once() -> None:
    make = Make(lambda text: len(encode(text)))
    [burst] = repaired_story(make, (5,))
    assert (card_of(burst).kind, card_of(burst).concurrency) == ("burst", 5)
    closed = unique(make, clients=3, num_calls=6, prompt=4, answer=4)
    assert (card_of(closed).kind, card_of(closed).concurrency) == ("closed", 3)
    open_loop = replace(closed, plan=Plan("open", rate=2.5))
    assert isinstance(open_loop, Workload)
    assert (card_of(open_loop).kind, card_of(open_loop).rate) == ("open", 2.5)
