"""The rows of the benchmark's pages, from made-up measurements."""

from __future__ import annotations

from benchmarks import engine_report
from benchmarks.cells import Cell, short_cells
from benchmarks.engine_run import CORRAL, ONE_THREAD, OPENVINO, Run, Turn
from benchmarks.machine import Limits
from benchmarks.work import MatmulWork

CELLS = [*short_cells([8], prefill=512, prompt=16, answer=4), Cell(16, 1500, 4)]
WORK = MatmulWork(body=1_000_000_000, head=0, num_bytes=1_000_000_000)


def engine_run(foreign: float = 0.0) -> Run:
    """Three repeats; the long cell in the first only, OpenVINO refused."""
    run = Run("m.gguf", "2026-01-01 00:00 UTC", {"CPU": "one"}, CELLS, WORK, repeats=3)
    limits = Limits(40.0, 1000.0)

    def add(contender: str, repeat: int, speeds: dict[str, float]) -> None:
        run.turns.append(Turn(contender, repeat, speeds, foreign, limits, limits))

    for repeat in range(3):
        add(CORRAL, repeat, {"prefill 512": 200.0 + repeat, "decode 1": 30.0, "decode 8": 160.0})
        add(ONE_THREAD, repeat, {"prefill 512": 100.0})
        add("llama.cpp, default flags", repeat, {"prefill 512": 100.0, "decode 1": 30.0, "decode 8": 40.0})
        add("llama.cpp, repack=0 fa=1", repeat, {"prefill 512": 150.0})
    add(CORRAL, 0, {"decode 16 at 1500": 80.0})
    run.failures[OPENVINO] = "unsupported type Q5_0"
    return run


def row(page: str, start: str) -> list[str]:
    """The columns of the first table row that begins so."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {start} |"))
    return [column.strip() for column in line.strip("|").split("|")]


def test_engines_stand_beside_each_other_with_ratios() -> None:
    page = engine_report.markdown(engine_run())
    assert row(page, "prefill 512") == [
        "prefill 512",
        "201.0 (200.0-202.0, n=3)",
        "100.0 (100.0-100.0, n=3)",
        "2.01 (2.00-2.02)",
        "150.0 (150.0-150.0, n=3)",
        "repack=0 fa=1",
        "1.34 (1.33-1.35)",
        "not run",
        "-",
    ]
    assert row(page, "decode 8")[4:6] == ["40.0 (40.0-40.0, n=3)", "default flags"]
    assert row(page, "decode 16 at 1500")[1:4] == ["80.0 (80.0-80.0, n=1)", "not run", "-"]
    assert "OpenVINO GenAI: unsupported type Q5_0" in page
    assert "busy" not in page


def test_shares_are_of_the_limits_measured_around_the_turn() -> None:
    shares = engine_report.markdown(engine_run()).split("## Share of the limit")[1]
    assert row(shares, "prefill 512")[2:] == ["**0.40 (0.40-0.40, n=3)**", "-", "-"]
    assert row(shares, "decode 1")[4] == "**0.75 (0.75-0.75, n=3)**"
    assert row(shares, "decode 8")[2] == "**0.32 (0.32-0.32, n=3)**"


def test_threads_are_compared_where_one_was_timed() -> None:
    threads = engine_report.markdown(engine_run()).split("## Threads")[1].split("## Machine")[0]
    assert row(threads, "prefill 512")[3] == "2.01 (2.00-2.02)"
    assert "decode 8" not in threads


def test_a_busy_machine_is_named_at_the_top() -> None:
    assert "busy" in engine_report.markdown(engine_run(foreign=0.3)).split("##")[0]
